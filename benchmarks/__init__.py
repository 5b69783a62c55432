"""Measurements; each is one command, see README.md."""
