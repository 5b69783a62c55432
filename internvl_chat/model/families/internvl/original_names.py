"""InternVL's tensors by name: the original's, those in `-hf` files, and those here."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from internvl_chat.model.conversion.weight_map import PEFT_PREFIX, FusedRows, Rule, WeightMap

MULTI_ADAPTER_PREFIX = "vision_model.encoder.box_attentions."
SINGLE_ADAPTER = re.compile(r"^((?:.*\.)?box_attention)\.")
# How many adapters the original's classes build, for a config.json without its weights.
ADAPTERS_OF_CLASS = {"InternVLChatModelWBboxML": 5, "InternVLChatModelWBbox": 1}
MULTI_ADAPTER_CLASS, SINGLE_ADAPTER_CLASS = ADAPTERS_OF_CLASS

_PROJECTOR = {"0": "layer_norm", "1": "linear_1", "3": "linear_2"}
_VIT_EMBEDDINGS = {
    "class_embedding": "cls_token",
    "patch_embedding": "patch_embeddings.projection",
    "position_embedding": "position_embeddings",
}
_VIT_LAYER = {
    "attn.proj": "attention.projection_layer",
    "attn.q_norm": "attention.q_norm",
    "attn.k_norm": "attention.k_norm",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_ADAPTER = {
    "norm1": "attention_norm",
    "norm2": "ffn_norm",
    "roi_mlp.0": "roi_conv",
    "ffn.dwconv": "ffn_depthwise",
}
_ADAPTER_POINTWISE = {
    "roi_mlp.2": "roi_proj",
    "attention.query_conv": "query",
    "attention.key_conv": "key",
    "attention.value_conv": "value",
    "attn_out": "attention_out",
    "ffn.project_in": "ffn_in",
    "ffn.project_out": "ffn_out",
}
_INTERNLM2_LAYER = {
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def vision_rules(hidden_size: int) -> list[Rule]:
    """The ViT with its box adapters, and the projector."""
    vit, layer, adapter = "model.vision_tower.", "encoder.layer.{n}.", "box_adapters.{n}."
    rules = [Rule(f"mlp1.{a}", (f"model.multi_modal_projector.{b}",)) for a, b in _PROJECTOR.items()]
    rules += [Rule(f"vision_model.embeddings.{a}", (f"{vit}embeddings.{b}",)) for a, b in _VIT_EMBEDDINGS.items()]
    rules += [Rule(f"vision_model.encoder.layers.{{n}}.{a}", (vit + layer + b,)) for a, b in _VIT_LAYER.items()]
    rules += [
        Rule(
            "vision_model.encoder.layers.{n}.attn.qkv",
            tuple(f"{vit}{layer}attention.{part}_proj" for part in "qkv"),
            fused=FusedRows(groups=1, heads_per_group=1, head_dim=hidden_size),
        )
    ]
    for names, pointwise in ((_ADAPTER, False), (_ADAPTER_POINTWISE, True)):
        rules += [
            Rule(f"{MULTI_ADAPTER_PREFIX}{{n}}.{a}", (vit + adapter + b,), pointwise=pointwise)
            for a, b in names.items()
        ]
    return rules


def language_rules() -> list[Rule]:
    """A language model that the original already names as transformers does: Qwen, Llama, Phi3."""
    return [Rule("language_model.model", ("model.language_model",)), Rule("language_model.lm_head", ("lm_head",))]


def internlm2_rules(num_heads: int, num_key_value_heads: int, head_dim: int) -> list[Rule]:
    """InternLM2 as Llama."""
    source, target = "language_model.model.layers.{n}.", "model.language_model.layers.{n}."
    return [
        Rule("language_model.model.tok_embeddings", ("model.language_model.embed_tokens",)),
        Rule("language_model.model.norm", ("model.language_model.norm",)),
        Rule("language_model.output", ("lm_head",)),
        *(Rule(source + a, (target + b,)) for a, b in _INTERNLM2_LAYER.items()),
        Rule(
            source + "attention.wqkv",
            tuple(f"{target}self_attn.{part}_proj" for part in "qkv"),
            fused=FusedRows(num_key_value_heads, num_heads // num_key_value_heads, head_dim),
        ),
    ]


class InternVLWeightMap(WeightMap):
    """The table of one model.

    Args:
        single_adapter_prefix: where the original keeps its single box adapter (`box_attention`); None for adapters in
            a numbered list.
    """

    def __init__(self, rules: Iterable[Rule], single_adapter_prefix: str | None = None) -> None:
        super().__init__(rules)
        self.single_adapter_prefix = single_adapter_prefix

    def bare(self, name: str) -> str:
        """As everywhere, and a single adapter as the first of a list."""
        bare = super().bare(name)
        if self.single_adapter_prefix is not None:
            bare = SINGLE_ADAPTER.sub(f"{MULTI_ADAPTER_PREFIX}0.", bare)
        return bare

    def dressed(self, name: str, wrapped: set[str]) -> str:
        """PEFT wraps the language model and the ViT each by itself."""
        if self.single_adapter_prefix is not None and name.startswith(MULTI_ADAPTER_PREFIX):
            return name.replace(f"{MULTI_ADAPTER_PREFIX}0", self.single_adapter_prefix, 1)
        for part, native in (("language_model", "language_model"), ("vision_model", "vision_tower")):
            if native in wrapped and name.startswith(part + "."):
                return name.replace(part + ".", f"{part}.{PEFT_PREFIX}", 1)
        return name


# The names in `-hf` files, and those that transformers wrote at one time or another, to those in memory. The first of
# each native path is what is written.
_HUB_PREFIXES = (
    ("language_model.lm_head", "lm_head"),
    ("language_model.model", "model.language_model"),
    ("vision_tower", "model.vision_tower"),
    ("multi_modal_projector", "model.multi_modal_projector"),
    ("model.language_model.model", "model.language_model"),
    ("language_model", "model.language_model"),
)


def hub_to_native(name: str) -> str:
    """The name in memory of a tensor in a `-hf` file."""
    for hub, native in _HUB_PREFIXES:
        if name.startswith(hub + "."):
            return native + name.removeprefix(hub)
    return name


def native_to_hub(name: str) -> str:
    """The name that `-hf` files on the hub have for a tensor in memory."""
    for hub, native in _HUB_PREFIXES:
        if name.startswith(native + "."):
            return hub + name.removeprefix(native)
    return name


@dataclasses.dataclass(frozen=True)
class AdapterLayout:
    """How many box adapters a checkpoint has, and where the original keeps a single one (None: in a numbered list)."""

    count: int
    single_prefix: str | None = None

    @staticmethod
    def of_names(names: Iterable[str]) -> AdapterLayout:
        """Read it off an original checkpoint's tensor names."""
        numbers = set()
        for name in names:
            bare = name.replace("base_model.model.", "", 1)
            if bare.startswith(MULTI_ADAPTER_PREFIX):
                numbers.add(bare.removeprefix(MULTI_ADAPTER_PREFIX).partition(".")[0])
            single = SINGLE_ADAPTER.match(bare)
            if single:
                return AdapterLayout(1, single[1])
        return AdapterLayout(len(numbers))

    @staticmethod
    def of_class(original: dict[str, Any]) -> AdapterLayout:
        """Guess it from the class that config.json names."""
        names = original.get("architectures") or [""]
        return AdapterLayout(ADAPTERS_OF_CLASS.get(names[0], 0), _single_prefix(names[0]))


def _single_prefix(class_name: str) -> str | None:
    return "box_attention" if class_name == SINGLE_ADAPTER_CLASS else None
