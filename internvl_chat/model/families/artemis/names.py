"""The table of names: what Artemis' own training calls its tensors, and what they are called here."""

from __future__ import annotations

from collections.abc import Mapping

from internvl_chat.model.conversion.weight_files import LazyTensor
from internvl_chat.model.conversion.weight_map import Rule, WeightMap
from internvl_chat.model.families.artemis.configuration import ArtemisConfig

TOWER_PREFIX = "model.vision_tower."
PROJECTOR_PREFIX = "model.multi_modal_projector."
ORIGINAL_REGION_MARK = ".spi_model."

_REGION_PREFIX = "model.region_encoder."
_PEFT_PREFIX = "base_model.model."
_REGION_MODULES = {
    "mlvl_fuse.input_conv.{n}": "level_convs.{n}",
    "mlvl_fuse.fuse_convs.{n}.conv": "fusions.{n}.conv",
    "mlvl_fuse.fuse_convs.{n}.gn": "fusions.{n}.norm",
    "roi_align.pconvs.{n}": "roi_convs.{n}",
    "roi_align.flatten_linear": "roi_proj",
    "roi_align.pos_embedd.{n}": "position.{n}",
    "roi_align.updims": "out",
}
_RULES = (
    Rule("model.embed_tokens", ("model.language_model.embed_tokens",)),
    Rule("model.layers.{n}", ("model.language_model.layers.{n}",)),
    Rule("model.norm", ("model.language_model.norm",)),
    Rule("lm_head", ("lm_head",)),
    Rule("model.image_tower.vision_tower.vision_model", (TOWER_PREFIX.rstrip("."),)),
    Rule("model.mm_projector.0", ("model.multi_modal_projector.linear_1",)),
    Rule("model.mm_projector.2", ("model.multi_modal_projector.linear_2",)),
    *(Rule(f"model.spi_model.{a}", (_REGION_PREFIX + b,)) for a, b in _REGION_MODULES.items()),
)


def weight_map(config: ArtemisConfig | None = None) -> WeightMap:
    """The table of names, the same for every size."""
    return WeightMap(_RULES)


def to_native(tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Native names of an original file's tensors, LoRA's as they are called inside a wrapped model.

    Raises:
        UserError: a tensor that is no part of Artemis.
    """
    return weight_map().to_native({_without_wrapping(name): tensor for name, tensor in tensors.items()})


def _without_wrapping(name: str) -> str:
    name = name.removeprefix(_PEFT_PREFIX)
    for half in ("lora_A", "lora_B"):
        name = name.replace(f".{half}.weight", f".{half}.default.weight")
    return name
