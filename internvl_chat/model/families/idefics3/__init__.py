"""Idefics3; importing it registers its captioner with transformers' Auto classes."""

from internvl_chat.model.families.idefics3.configuration import Idefics3CaptionerConfig
from internvl_chat.model.families.idefics3.model import Idefics3Captioner

__all__ = ["Idefics3Captioner", "Idefics3CaptionerConfig"]
