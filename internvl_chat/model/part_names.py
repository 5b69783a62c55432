"""What a family says of its model in `parts.py`: its parts' names among the parameters, and its tower's sizes."""

from __future__ import annotations

from dataclasses import dataclass

# What of a part is followed by layers that a control with weights was put behind.
ADAPTERS = "box_adapters"


@dataclass(frozen=True)
class PartNames:
    """The modules that a model's parts are, as its parameters' names have them.

    Args:
        tower, projector, language_model: of the three parts that every base has.
        tower_layers: where the tower keeps its numbered layers.
        tower_lora: what LoRA wraps in those layers.
        added: modules that a base does not have, and that are trained whole whatever else is.
    """

    tower: str
    projector: str
    language_model: str
    tower_layers: str
    tower_lora: tuple[str, ...]
    added: tuple[str, ...] = (ADAPTERS,)

    def is_added(self, parameter_name: str) -> bool:
        """Whether a parameter belongs to a module that the base does not have."""
        return any(f".{module}." in parameter_name for module in self.added)

    @property
    def embedding_table(self) -> str:
        """The language model's input embeddings."""
        return f"model.{self.language_model}.embed_tokens.weight"


# The names that most models of transformers have.
USUAL_NAMES = PartNames(
    tower="vision_tower",
    projector="multi_modal_projector",
    language_model="language_model",
    tower_layers="encoder.layer",
    # The box adapters, trained whole, stand beside the encoder.
    tower_lora=("q_proj", "k_proj", "v_proj", "projection_layer", "fc1", "fc2"),
)


@dataclass(frozen=True)
class TowerSizes:
    """Sizes of the tower and the projector.

    Args:
        layers, width, inner: of the tower; `inner` is its feed-forward's width.
        patches: tokens of a tile in the tower, a class token among them.
        tokens: of a tile in the language model.
        projector_weights: multiply-adds of the projector for one of those tokens.
        projector_kept: numbers that the projector keeps of one of them for the backward pass.
        whole_video: frames, at most, and tokens of a video that is shown as a whole; None where each frame has its own.
        region_numbers: that a region encoder holds of one sample's pictures while its gradients are computed.
    """

    layers: int
    width: int
    inner: int
    patches: int
    tokens: int
    projector_weights: int
    projector_kept: int
    whole_video: tuple[int, int] | None = None
    region_numbers: int = 0
