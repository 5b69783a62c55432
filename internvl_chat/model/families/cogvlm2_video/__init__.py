"""CogVLM2-Video: EVA2-CLIP's tower and Llama 3, joined by a gated projector. Importing it registers the model."""

from internvl_chat.model.families.cogvlm2_video.configuration import CogVLM2VideoConfig, CogVLM2VideoVisionConfig
from internvl_chat.model.families.cogvlm2_video.model import CogVLM2VideoForConditionalGeneration, CogVLM2VideoModel

__all__ = [
    "CogVLM2VideoConfig",
    "CogVLM2VideoForConditionalGeneration",
    "CogVLM2VideoModel",
    "CogVLM2VideoVisionConfig",
]
