"""InternVL; importing it registers IntentVCNet's model with transformers' Auto classes."""

from internvl_chat.model.families.internvl.configuration import IntentVCNetConfig, IntentVCNetVisionConfig
from internvl_chat.model.families.internvl.model import IntentVCNetForConditionalGeneration, IntentVCNetModel
from internvl_chat.model.families.internvl.vision import IntentVCNetVisionModel

__all__ = [
    "IntentVCNetConfig",
    "IntentVCNetForConditionalGeneration",
    "IntentVCNetModel",
    "IntentVCNetVisionConfig",
    "IntentVCNetVisionModel",
]
