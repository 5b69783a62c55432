"""Tensors to loss or tokens. What belongs to one family of bases is in its folder of `families/`."""
