"""Configuration of CogVLM2-Video: the tower's geometry, and transformers' own Llama."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, LlamaConfig, PreTrainedConfig

from internvl_chat.contracts import UserError

# The begin and the end of a frame, which stand around its patches.
NUM_FRAME_MARKS = 2
# The projector's convolution joins so many patches a side.
DOWNSAMPLE = 2


class CogVLM2VideoVisionConfig(PreTrainedConfig):
    """EVA2-CLIP's vision tower; the defaults are those of the published checkpoint."""

    model_type = "cogvlm2_video_vision"
    base_config_key = "vision_config"

    hidden_size: int = 1792
    intermediate_size: int = 15360
    num_hidden_layers: int = 63
    num_attention_heads: int = 16
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 14
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    @property
    def patches_per_side(self) -> int:
        return self.image_size // self.patch_size


class CogVLM2VideoConfig(PreTrainedConfig):
    """A frame's tower, a projector and Llama.

    Args:
        image_token_id: stands in `input_ids` for each token of a frame. The original uses its padding token.
        base_model_name_or_path: the base that a training checkpoint belongs to, folder or hub id.
        base_fingerprint: of that base's weights; a checkpoint is refused on any other.
        num_added_tokens: rows at the end of the vocabulary that the base's files do not have.
        original: what the config.json of an original-layout checkpoint said, for the way back.
    """

    model_type = "cogvlm2_video"
    # The one name is that of transformers before 5.23, which makes nothing of them by itself.
    sub_configs_defaults = sub_configs = {"vision_config": CogVLM2VideoVisionConfig, "text_config": LlamaConfig}

    vision_config: Any = None
    text_config: Any = None
    image_token_id: int = 128002
    tie_word_embeddings: bool = False
    base_model_name_or_path: str | None = None
    base_fingerprint: str | None = None
    num_added_tokens: int = 0
    original: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for name, kind in self.sub_configs.items():
            given = getattr(self, name)
            if not isinstance(given, PreTrainedConfig):
                setattr(self, name, kind(**(given or {})))
        super().__post_init__(**kwargs)
        if self.vision_config.patches_per_side % DOWNSAMPLE:
            raise ValueError(
                f"image_size {self.vision_config.image_size} with patch_size {self.vision_config.patch_size}: "
                f"expected a multiple of {DOWNSAMPLE} patches a side"
            )

    @property
    def tokens_per_frame(self) -> int:
        """A frame's tokens in the prompt, its begin and end among them."""
        return (self.vision_config.patches_per_side // DOWNSAMPLE) ** 2 + NUM_FRAME_MARKS


def captioner_config(base: CogVLM2VideoConfig, num_adapter_layers: int) -> CogVLM2VideoConfig:
    """The configuration as it is: this family is trained without box adapters.

    Raises:
        UserError: box adapters are asked for.
    """
    if num_adapter_layers:
        raise UserError(f"--num_adapter_layers {num_adapter_layers}: CogVLM2-Video has no box adapters; expected 0")
    return base


def num_adapters(config: CogVLM2VideoConfig) -> int:
    """None."""
    return 0


AutoConfig.register(CogVLM2VideoConfig.model_type, CogVLM2VideoConfig)
AutoConfig.register(CogVLM2VideoVisionConfig.model_type, CogVLM2VideoVisionConfig)
