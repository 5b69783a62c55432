"""What one training pass costs, from a configuration alone: the bytes its activations take, and its FLOPs.

Conventions. A multiply-add is two FLOPs; a layer of N weights costs 2N a token forward, 2N more where gradients pass it
and 2N more where its weights are trained: 4N for a language model with LoRA, 6N where all of it is trained, 2N for the
frozen part of the ViT. Causal attention counts half a square, and its backward pass twice its forward one. What
checkpointing computes again is no part of these FLOPs.

Bytes are those that autograd keeps for the backward pass, tensor by tensor, plus what exists for a moment at the peak.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from internvl_chat.families import family_of
from internvl_chat.model.controls.box_adapter import ROI_CELLS
from internvl_chat.model.label_loss import GPU_CHUNK_TOKENS
from internvl_chat.model.memory.recomputation import Recomputation
from internvl_chat.model.part_names import TowerSizes
from internvl_chat.model.trainable import LORA_TARGETS, TrainablePart

# IntentVCNet's prompt in Qwen2's tokens, beside those of the frames: `<img>` and `</img>`, "Frame-1: " and a coordinate
# line a frame; the system message, the question and the chat's marks once.
MARKS_PER_FRAME, LABEL_TOKENS_PER_FRAME, COORDINATE_TOKENS_PER_FRAME, QUESTION_TOKENS = 2, 8, 30, 110
_FP32_BYTES, _MASK_BYTES = 4, 1
# Logits in the model's dtype, log-probabilities and their gradient in fp32 (the loss at labels, a chunk at a time).
_LOGITS_BYTES_FP32 = 2 * _FP32_BYTES

# Whose layers do a work, where it can be computed again.
Layers = Literal["ViT", "LLM"] | None


def prompt_tokens(config: Any, num_frames: int, coordinates: bool = True) -> int:
    """About how many tokens a prompt of so many frames has, with or without a coordinate line a frame."""
    whole_video = family_of(config).parts.tower_sizes(config).whole_video
    if whole_video:
        return min(num_frames * _tokens_per_frame(config, coordinates), whole_video[1]) + QUESTION_TOKENS
    return num_frames * _tokens_per_frame(config, coordinates) + QUESTION_TOKENS


def frames_within(config: Any, num_tokens: int) -> int:
    """About how many frames, at least one, a prompt of so many tokens shows."""
    whole_video = family_of(config).parts.tower_sizes(config).whole_video
    if whole_video:
        return whole_video[0]
    return max(1, (num_tokens - QUESTION_TOKENS) // _tokens_per_frame(config, coordinates=True))


def _tokens_per_frame(config: Any, coordinates: bool) -> int:
    text = LABEL_TOKENS_PER_FRAME + COORDINATE_TOKENS_PER_FRAME * coordinates
    return family_of(config).parts.tower_sizes(config).tokens + MARKS_PER_FRAME + text


def shares_again(again: Recomputation, layers: int) -> dict[Layers, float]:
    """The share of the ViT's passed layers, and of the language model's, that is computed again as a whole."""
    return {"ViT": float(again.tower), "LLM": again.llm_layers / layers, None: 0.0}


@dataclass(frozen=True)
class Work:
    """FLOPs of one part's forward pass, how many times that forward and backward cost, and whose layers do it."""

    part: str
    forward: float
    factor: int
    layers: Layers
    kind: Literal["product", "low rank", "attention"] = "product"


@dataclass(frozen=True)
class PassShape:
    """What a pass of one process holds: ViT tiles, tokens of the language model, and how many of them are targets.

    The tokens are those of `samples` prompts side by side that do not see each other.
    """

    tiles: int
    tokens: int
    targets: int
    samples: int = 1


@dataclass(frozen=True)
class Footprint:
    """Costs of passes through one model.

    Args:
        config: the model's; only sizes are read.
        trained: which parts have trained weights.
        num_adapter_layers: box adapters on the ViT's last layers.
        lora_dropout: with it every LoRA matrix keeps its own copy of its input, and a mask.
        element_bytes: of the model's dtype, 2 for bfloat16.
    """

    config: Any
    trained: TrainablePart
    num_adapter_layers: int
    lora_dropout: float = 0.05
    element_bytes: int = 2

    @cached_property
    def tower(self) -> TowerSizes:
        """Of the tower and the projector."""
        return family_of(self.config).parts.tower_sizes(self.config)

    @property
    def _trains_llm(self) -> bool:
        return not self.trained.freeze_llm and not self.trained.use_llm_lora

    @property
    def attention_widths(self) -> tuple[int, int]:
        """Widths of all query heads and of all key heads of a language-model layer."""
        text = self.config.text_config
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return head * text.num_attention_heads, head * text.num_key_value_heads

    @property
    def apart(self) -> bool:
        """Whether queries, keys and values have a matrix each, and so gate and content."""
        return "q_proj" in LORA_TARGETS.get(self.config.text_config.model_type, ("q_proj",))

    @property
    def trunk_layers(self) -> int:
        """ViT layers that no gradient reaches."""
        layers, own = self.tower.layers, self.trained.unfrozen_vit_layers
        if not self.trained.freeze_backbone or self.trained.use_backbone_lora:
            return 0
        before_adapters = layers - self.num_adapter_layers + 1 if self.num_adapter_layers else layers
        return min([before_adapters, *own])

    @property
    def _trains_vit(self) -> bool:
        """Whether ViT layers that gradients pass are trained whole; if some are, all count as such."""
        trained = self.trained
        return bool(trained.unfrozen_vit_layers) or not (trained.freeze_backbone or trained.use_backbone_lora)

    @property
    def _trains_head(self) -> bool:
        return self._trains_llm or self.trained.unfreeze_lm_head or len(self.trained.new_tokens) > 0

    def pixel_bytes(self, tiles: int) -> int:
        """Of so many tiles as they come to the device, a byte a colour."""
        side = self.config.vision_config.patch_size
        area = side * side if isinstance(side, int) else math.prod(side)
        return 3 * tiles * self.tower.patches * area

    def kept_bytes(self, shape: PassShape, again: Recomputation) -> dict[str, int]:
        """Bytes of activations that stay from the forward to the backward pass, by part.

        Args:
            again: what is computed again; of whole layers only the input is kept.
        """
        text, tower, e = self.config.text_config, self.tower, self.element_bytes
        width, vit_width = text.hidden_size, tower.width
        passed = tower.layers - self.trunk_layers
        if again.tower:
            adapted = e * vit_width * (passed + self.num_adapter_layers)
        else:
            adapted = passed * self._vit_layer_bytes() + self.num_adapter_layers * self._adapter_bytes()
        llm = e * width * again.llm_layers
        llm += self._llm_layer_bytes(again.cheap) * (text.num_hidden_layers - again.llm_layers)
        # Behind the last layer's attention only the rows of the targets go on.
        left_out = self._ffn_bytes(again.cheap) if again.llm_layers < text.num_hidden_layers else 0
        return {
            "ViT adapted layers": shape.tiles * tower.patches * adapted,
            "projector": self._visual_tokens(shape) * e * tower.projector_kept,
            "LLM": shape.tokens * llm - (shape.tokens - shape.targets) * left_out,
        }

    def passing_bytes(self, shape: PassShape, again: Recomputation) -> dict[str, int]:
        """Bytes that exist for a moment, one part at a time, beside those that are kept."""
        text, tower, e = self.config.text_config, self.tower, self.element_bytes
        patches = shape.tiles * tower.patches
        # The first layer to go backward has no feed-forward to speak of; its attention is gone when the next one needs
        # the most.
        llm_layer = e * (2 * text.intermediate_size + 2 * text.hidden_size)
        vit_layer = e * (tower.inner + 2 * tower.width)
        adapter = e * 8 * tower.width
        if again.cheap:
            # Made again for the backward pass: the gated product, what dropout leaves of it, and their gradients.
            llm_layer += 3 * e * text.intermediate_size
        # When the first layer recomputes its inside, those that were kept, of the last layers, are gone.
        if again.llm_layers < text.num_hidden_layers:
            llm_layer -= self._attention_bytes(again.cheap)
        gone = shape.tokens * self._llm_layer_bytes(again.cheap) * (text.num_hidden_layers - again.llm_layers)

        # Inside a layer computed again, what dropout left of the gated product goes before its gradient is whole.
        dropped = e * text.intermediate_size * bool(self.trained.use_llm_lora and self.lora_dropout)

        def inside(size: int, is_again: object) -> int:
            return max(0, size - gone) if is_again else 0

        reached = tower.layers > self.trunk_layers
        return {
            "ViT trunk": patches * e * (5 * tower.width + 2 * tower.inner),
            "a ViT layer": (patches * vit_layer + inside(patches * self._vit_layer_bytes(), again.tower)) * reached,
            "a box adapter": (patches * adapter + inside(patches * self._adapter_bytes(), again.tower))
            * bool(self.num_adapter_layers),
            "region encoder": shape.samples * e * tower.region_numbers,
            "an LLM layer": shape.tokens * max(0, llm_layer)
            + inside(shape.tokens * (self._llm_layer_bytes() - dropped), again.llm_layers),
            "logits at labels": min(shape.targets, GPU_CHUNK_TOKENS) * text.vocab_size * (e + _LOGITS_BYTES_FP32)
            + text.vocab_size * text.hidden_size * _FP32_BYTES * self._trains_head,
        }

    def peak_activation_bytes(self, shape: PassShape, again: Recomputation) -> int:
        """The most bytes of activations that exist at a time."""
        kept, passing = self.kept_bytes(shape, again), self.passing_bytes(shape, again)
        return sum(kept.values()) + max(passing.values())

    def _visual_tokens(self, shape: PassShape) -> int:
        """Tokens that the projector makes."""
        each_tile = shape.tiles * self.tower.tokens
        return min(each_tile, shape.samples * self.tower.whole_video[1]) if self.tower.whole_video else each_tile

    def _llm_layer_bytes(self, cheap: bool = False) -> int:
        """A token's in one layer of the language model."""
        return self._attention_bytes(cheap) + self._ffn_bytes(cheap)

    def _attention_bytes(self, cheap: bool) -> int:
        """A norm's input, those of trained matrices, queries, keys, values, what attention gives, a number a head.

        Where what is cheap is computed again, the inputs of matrices are left out.
        """
        text, e = self.config.text_config, self.element_bytes
        width, (queries, keys) = text.hidden_size, self.attention_widths
        kept = e * (2 * queries + 2 * keys) + _FP32_BYTES * text.num_attention_heads
        if cheap:
            return kept + e * width + self._low_bytes(4 if self.apart else 2)
        matrices = 3 if self.apart else 1
        return kept + e * width + self._input_bytes(matrices, queries) + self._low_bytes(matrices + 1)

    def _ffn_bytes(self, cheap: bool) -> int:
        """A norm's input, those of trained matrices, gate, its activation, and content.

        Where what is cheap is computed again: what the norm is given, gate and content.
        """
        text, e = self.config.text_config, self.element_bytes
        width, inner = text.hidden_size, text.intermediate_size
        matrices = 2 if self.apart else 1
        if cheap:
            return e * (width + 2 * inner) + self._low_bytes(matrices + 1)
        return e * (width + 3 * inner) + self._input_bytes(matrices, inner) + self._low_bytes(matrices + 1)

    def _input_bytes(self, from_norm: int, last_width: int) -> int:
        """What trained matrices keep of their inputs: so many behind a norm, and one of another width.

        With dropout each LoRA matrix has its own copy, and a mask.
        """
        width, e = self.config.text_config.hidden_size, self.element_bytes
        if self.trained.use_llm_lora and self.lora_dropout:
            return (e + _MASK_BYTES) * (from_norm * width + last_width)
        if self.trained.use_llm_lora or self._trains_llm:
            # Where the norm's weight is trained, what it multiplies is kept too.
            return e * (width + last_width) + e * width * self._trains_llm
        return 0

    def _low_bytes(self, matrices: int) -> int:
        """Between LoRA's two matrices, of so many."""
        return self.element_bytes * self.trained.use_llm_lora * matrices

    def _vit_layer_bytes(self) -> int:
        """A patch's in one layer that gradients pass: two norms, attention, GELU, inputs of trained matrices."""
        tower, e = self.tower, self.element_bytes
        width, inner = tower.width, tower.inner
        copied = e + _MASK_BYTES * bool(self.trained.use_backbone_lora and self.lora_dropout)
        inputs = 0
        if self._trains_vit or self.trained.use_backbone_lora:
            matrices = len(self.trained.names.tower_lora)
            inputs = copied * (5 * width + inner) + e * self.trained.use_backbone_lora * matrices
        return e * (6 * width + inner) + inputs

    def _adapter_bytes(self) -> int:
        """A patch's in one box adapter: what norms are given and give, attention, the gated feed-forward."""
        width, e = self.tower.width, self.element_bytes
        return e * (2 + 4 + 2 + 4 + 4 + 2 + 2) * width

    def flops(self, shape: PassShape) -> dict[str, float]:
        """FLOPs of a forward and backward pass, by part."""
        return {work.part: work.forward * work.factor for work in self.work(shape)}

    def recomputed_flops(self, shape: PassShape, again: Recomputation) -> float:
        """What recomputing adds: another forward pass through whole layers; what is cheap has no FLOPs to speak of."""
        shares = shares_again(again, self.config.text_config.num_hidden_layers)
        return sum(work.forward * shares[work.layers] for work in self.work(shape))

    def work(self, shape: PassShape) -> list[Work]:
        """FLOPs of a forward pass by part, and how often the whole pass costs them."""
        text, tower = self.config.text_config, self.tower
        width, vit_width = text.hidden_size, tower.width
        queries, keys = self.attention_widths
        patches = shape.tiles * tower.patches
        passed = tower.layers - self.trunk_layers

        llm_attention = width * (2 * queries + 2 * keys)
        llm_ffn = 3 * width * text.intermediate_size
        lora_attention = 2 * (2 * width + queries + keys)
        lora_ffn = 3 * (width + text.intermediate_size)
        llm_tokens = 2.0 * shape.tokens * text.num_hidden_layers
        # The last layer's feed-forward sees the rows of the targets only.
        ffn_tokens = llm_tokens - 2.0 * (shape.tokens - shape.targets)
        vit_layer = 2.0 * patches * (4 * vit_width**2 + 2 * vit_width * tower.inner)
        vit_lora = 2.0 * patches * (2 * 5 * vit_width + 2 * tower.inner) * self.trained.use_backbone_lora
        vit_attention = 4.0 * patches * tower.patches * vit_width
        # Query, output and feed-forward of the patches; convolution, projection, keys and values of the RoI cells.
        adapter = 2.0 * patches * (8 * vit_width**2 + 9 * 4 * vit_width)
        adapter += 2.0 * shape.tiles * ROI_CELLS**2 * 22 * vit_width**2
        projector = 2.0 * self._visual_tokens(shape) * tower.projector_weights

        lora = llm_tokens * lora_attention + ffn_tokens * lora_ffn
        llm_factor = 3 if self._trains_llm else 2
        return [
            Work("ViT trunk", self.trunk_layers * vit_layer, 1, None),
            Work("ViT attention in it", self.trunk_layers * vit_attention, 1, None, "attention"),
            Work("ViT adapted layers", passed * vit_layer, 3 if self._trains_vit else 2, "ViT"),
            Work("ViT attention in them", passed * vit_attention, 3, "ViT", "attention"),
            Work("box adapters", self.num_adapter_layers * adapter, 3, "ViT"),
            Work("projector", projector, 3, None),
            Work("LLM", llm_tokens * llm_attention + ffn_tokens * llm_ffn, llm_factor, "LLM"),
            Work("LoRA of the ViT", passed * vit_lora, 3, "ViT", "low rank"),
            Work("LoRA", lora * self.trained.use_llm_lora, 3, "LLM", "low rank"),
            Work("LLM attention", llm_tokens * queries * shape.tokens / shape.samples, 3, "LLM", "attention"),
            Work("logits", 2.0 * shape.targets * width * text.vocab_size, 3 if self._trains_head else 2, None),
        ]
