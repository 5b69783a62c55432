"""Configuration: InternVL's own, plus how many of the ViT's layers are followed by a box adapter."""

from __future__ import annotations

from typing import Any, Literal

from transformers import AutoConfig, InternVLConfig, InternVLVisionConfig


class IntentVCNetVisionConfig(InternVLVisionConfig):
    """InternViT with box adapters.

    Args:
        num_adapter_layers: a box adapter follows each of the last `num_adapter_layers` layers. 5 is IntentVCNet's
            multi-layer model, 1 its single-layer one (an adapter on the ViT's output), 0 the plain ViT.
        adapter_norm: what the adapters' RMSNorm runs over: `channel`, or `spatial` as in weights that the original
            code trained, which needs as many patches as channels and works at one tile size only.
    """

    model_type = "intentvcnet_vision"
    base_config_key = "vision_config"

    num_adapter_layers: int = 5
    adapter_norm: Literal["channel", "spatial"] = "channel"

    def __post_init__(self, **kwargs: Any) -> None:
        if not 0 <= self.num_adapter_layers <= self.num_hidden_layers:
            raise ValueError(
                f"num_adapter_layers is {self.num_adapter_layers}: expected 0 to {self.num_hidden_layers}, "
                "the number of ViT layers"
            )
        super().__post_init__(**kwargs)


class IntentVCNetConfig(InternVLConfig):
    """InternVL whose vision tower is an `IntentVCNetVisionConfig`; every other field is InternVL's.

    Args:
        base_model_name_or_path: the base that a training checkpoint belongs to, folder or hub id.
        base_fingerprint: of that base's weights; a checkpoint is refused on any other.
        region_tokens: whether it has a region encoder, whose tokens stand at the slots of `region_token_id`.
        num_added_tokens: rows at the end of the vocabulary that the base's files do not have; they begin as the mean of
            the others.
        original: what the config.json of an original-layout checkpoint said, for the way back.
    """

    model_type = "intentvcnet"

    region_tokens: bool = False
    base_model_name_or_path: str | None = None
    base_fingerprint: str | None = None
    num_added_tokens: int = 0
    original: dict[str, Any] | None = None
    vision_config: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.vision_config, IntentVCNetVisionConfig):
            fields = self.vision_config or {}
            if not isinstance(fields, dict):
                fields = fields.to_dict()
            self.vision_config = IntentVCNetVisionConfig(**{k: v for k, v in fields.items() if k != "model_type"})
        super().__post_init__(**kwargs)
        if self.vision_config.num_adapter_layers and self.vision_feature_layer != -1:
            raise ValueError(
                f"vision_feature_layer is {self.vision_feature_layer}: box adapters need the last ViT layer (-1)"
            )

    @property
    def region_token_id(self) -> int:
        """Id of `<quad>`, which every tokenizer of the family has behind `<IMG_CONTEXT>`, and no text uses."""
        return self.image_token_id + 1

    @classmethod
    def from_base(cls, base: InternVLConfig, num_adapter_layers: int) -> IntentVCNetConfig:
        """The configuration of `base` with box adapters added."""
        fields = {k: v for k, v in base.to_dict().items() if k not in ("model_type", "architectures")}
        fields["vision_config"] = {**fields["vision_config"], "num_adapter_layers": num_adapter_layers}
        return cls(**fields)


def captioner_config(base: InternVLConfig, num_adapter_layers: int) -> IntentVCNetConfig:
    """The configuration of `base` with so many box adapters; one that already has them is taken as it is."""
    if isinstance(base, IntentVCNetConfig) and num_adapters(base) == num_adapter_layers:
        return base
    return IntentVCNetConfig.from_base(base, num_adapter_layers)


def with_region_tokens(config: InternVLConfig) -> None:
    """Ask for a region encoder, in place; a base hands it on to the captioner that is made of it."""
    config.region_tokens = True


def num_adapters(config: InternVLConfig) -> int:
    """Box adapters of a model; InternVL's own has none."""
    return int(getattr(config.vision_config, "num_adapter_layers", 0))


AutoConfig.register(IntentVCNetConfig.model_type, IntentVCNetConfig)
AutoConfig.register(IntentVCNetVisionConfig.model_type, IntentVCNetVisionConfig)
