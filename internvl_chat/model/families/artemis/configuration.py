"""Configuration: LLaVA's own (CLIP, a projector, Llama), plus the slots of videos and regions."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, LlavaConfig

from internvl_chat.contracts import UserError

# What a video becomes: a token for each of its frames, up to so many, then one for each patch.
MAX_VIDEO_FRAMES = 100


class ArtemisConfig(LlavaConfig):
    """A LLaVA that reads a video as pooled CLIP features, and a tracked object as region tokens.

    Args:
        image_token_index: id of a picture's slot; those of a video's and a region's are the next two. -1 is the first
            id behind the vocabulary. What the embeddings may have at these ids is never used.
        region_tokens: whether it has a region encoder; the original's has one from stage 3 on.
        region_layers: indices of the tower's hidden states that regions are read from, from the pixels on.
        region_scales: of each level's grid, in patch grids.
        region_width: channels of a region before it is brought to the language model's width.
        region_cells: side of a region's RoIAlign.
        region_fusions: exchanges between levels.
        region_groups: of their GroupNorm.
        base_model_name_or_path, base_fingerprint, num_added_tokens, original: as in `IntentVCNetConfig`.
    """

    model_type = "artemis"

    image_token_index: int = -1
    region_tokens: bool = True
    region_layers: tuple[int, ...] = (-11, -8, -5, -2)
    region_scales: tuple[int, ...] = (8, 4, 2, 1)
    region_width: int = 1024
    region_cells: int = 14
    region_fusions: int = 5
    region_groups: int = 64
    base_model_name_or_path: str | None = None
    base_fingerprint: str | None = None
    num_added_tokens: int = 0
    original: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        vision = self.vision_config
        if self.image_token_index < 0:
            self.image_token_index = self.text_config.vocab_size
        self.image_seq_length = (vision.image_size // vision.patch_size) ** 2
        if len(self.region_layers) != len(self.region_scales):
            raise ValueError(
                f"region_layers {self.region_layers} and region_scales {self.region_scales}: expected as many of both"
            )
        deepest = -min(self.region_layers)
        if deepest > vision.num_hidden_layers + 1:
            raise ValueError(
                f"region_layers {self.region_layers}: the tower has {vision.num_hidden_layers + 1} hidden states"
            )

    @property
    def video_token_id(self) -> int:
        """Id of a video's slot."""
        return self.image_token_index + 1

    @property
    def region_token_id(self) -> int:
        """Id of a region's slot."""
        return self.image_token_index + 2

    @property
    def video_seq_length(self) -> int:
        """Tokens of one video."""
        return MAX_VIDEO_FRAMES + self.image_seq_length


def captioner_config(base: ArtemisConfig, num_adapter_layers: int) -> ArtemisConfig:
    """`base` itself.

    Raises:
        UserError: box adapters are asked for.
    """
    if num_adapter_layers:
        raise UserError(
            f"--num_adapter_layers {num_adapter_layers}: Artemis has no place for box adapters, its objects are region "
            "tokens; give --num_adapter_layers 0"
        )
    return base


def with_region_tokens(config: ArtemisConfig) -> None:
    """Ask for a region encoder, in place."""
    config.region_tokens = True


def num_adapters(config: ArtemisConfig) -> int:
    """None."""
    return 0


AutoConfig.register(ArtemisConfig.model_type, ArtemisConfig)
