"""Fine-tuning vision-language models so that a box decides what the caption is about."""

__version__ = "0.1.0"
