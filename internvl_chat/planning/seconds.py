"""How long a training pass takes, part by part: FLOPs of products and of attention, and bytes read and written.

What is done element by element, in norms, dropout, LoRA's additions and the rest, takes a third of a pass: its bytes
are those of the operators as they run, each reading its operands from memory and writing its result. Communication
between GPUs, and waiting for data, are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from internvl_chat.model.memory.recomputation import Recomputation
from internvl_chat.planning.cards import Rates
from internvl_chat.planning.footprint import Footprint, Layers, PassShape, Work, shares_again

# Bytes an element, forward and backward, in a model of two-byte numbers; each number is a sum over operators.
# RMSNorm's kernel, which reads and writes, and backward reads two tensors; and a product with the weight. They are
# moved at 1,585 GB/s where dropout, at whose rate all bytes are taken, reached 2,442 (benchmarks/GPU.md, third run).
_NORM_SLOWER = 2442 / 1585
_NORM = (8 * _NORM_SLOWER, 10 * _NORM_SLOWER)
# A residual connection: a sum, and in backward another one of the gradients that meet.
_RESIDUAL = (6, 6)
# The gated product: SiLU, product; both derivatives.
_GATED = (10, 18)
# Dropout with a mask of a byte, of what a LoRA matrix is given.
_DROPOUT = (5, 5)
# LoRA's product is added onto what the frozen matrix gives, which it reads.
_LORA_OUTPUT = (2, 0)
# Gradients with respect to a matrix' input, where they meet.
_MEETING = 6
# Rotary positions and copies between layouts, of queries and keys.
_ROTARY = (28, 44)
_ROTARY_COPIES = 8
# Answers' scores, element by element in fp32, of each head at each position of the prompt.
_SCORES = (42, 73)
# A layer of the ViT by its width (norms, scales, residuals), and by its inner width (GELU).
_VIT_WIDTH, _VIT_INNER = (28, 50), (4, 6)
# A box adapter by the ViT's width: two norms, the gated feed-forward and its convolution, RoI pooling.
_ADAPTER = (86, 168)
# AdamW on fp32: gradient, master, two moments; master and moments written, and the bfloat16 weight.
_OPTIMIZER = 30
# Of flash attention's backward pass, which makes the scores again: five products to the forward pass' two.
_ATTENTION_BACKWARD = 2.5


@dataclass(frozen=True)
class Traffic:
    """Bytes that one part reads and writes element by element; `again` is what making the cheap again adds."""

    part: str
    forward: float
    backward: float
    layers: Layers
    again: float = 0.0


def traffic(footprint: Footprint, shape: PassShape) -> list[Traffic]:
    """What a forward and backward pass moves, by part."""
    tower, patches = footprint.tower, shape.tiles * footprint.tower.patches
    passed = tower.layers - footprint.trunk_layers

    def vit(number: int, way: int) -> float:
        return patches * number * (_VIT_WIDTH[way] * tower.width + _VIT_INNER[way] * tower.inner)

    adapters = footprint.num_adapter_layers * patches * tower.width
    return [
        Traffic("ViT trunk", vit(footprint.trunk_layers, 0), 0, None),
        Traffic("ViT adapted layers", vit(passed, 0), vit(passed, 1), "ViT"),
        Traffic("box adapters", adapters * _ADAPTER[0], adapters * _ADAPTER[1], "ViT"),
        _language_model(footprint, shape),
    ]


def _language_model(footprint: Footprint, shape: PassShape) -> Traffic:
    text = footprint.config.text_config
    width, inner, layers = text.hidden_size, text.intermediate_size, text.num_hidden_layers
    queries, keys = footprint.attention_widths
    rows = shape.tokens * layers
    # The last layer's feed-forward sees the rows of the targets only.
    ffn_rows = rows - (shape.tokens - shape.targets)
    shared = (3, 2) if footprint.apart else (1, 1)
    lora = footprint.trained.use_llm_lora > 0
    dropped = lora and footprint.lora_dropout > 0
    # Elements of what LoRA's matrices are given, and of what they give.
    given = rows * (shared[0] * width + queries) + ffn_rows * (shared[1] * width + inner)
    made = rows * (queries + 2 * keys + width) + ffn_rows * (2 * inner + width)
    # Each matrix has a gradient for its input, and so has LoRA beside it.
    gradients = [matrices * (1 + lora) - 1 for matrices in (*shared, 1)]
    meeting = rows * (gradients[0] * width + gradients[2] * queries)
    meeting += ffn_rows * (gradients[1] * width + gradients[2] * inner)
    scores = layers * text.num_attention_heads * shape.targets * shape.tokens / shape.samples

    def both(way: int) -> float:
        wide = (rows + ffn_rows) * width * (_NORM[way] + _RESIDUAL[way])
        wide += ffn_rows * inner * _GATED[way] + rows * (queries + keys) * _ROTARY[way] + scores * _SCORES[way]
        return wide + given * _DROPOUT[way] * dropped + made * _LORA_OUTPUT[way] * lora

    again = (rows + ffn_rows) * width * _NORM[0] + ffn_rows * inner * _GATED[0] + given * _DROPOUT[0] * dropped
    again += rows * queries * _ROTARY_COPIES
    return Traffic("LLM", both(0), both(1) + meeting * _MEETING, "LLM", again)


def moved_bytes(footprint: Footprint, shape: PassShape, again: Recomputation) -> float:
    """What a pass moves in all, with what is computed again."""
    shares = shares_again(again, footprint.config.text_config.num_hidden_layers)
    return sum(
        moved.forward + moved.backward + _moved_again(moved, shares, again) for moved in traffic(footprint, shape)
    )


def _moved_again(moved: Traffic, shares: dict[Layers, float], again: Recomputation) -> float:
    share = shares[moved.layers]
    return moved.forward * share + moved.again * (1 - share) * again.cheap


def pass_seconds(footprint: Footprint, shape: PassShape, again: Recomputation, rates: Rates) -> dict[str, float]:
    """Seconds of a forward and backward pass, by part; what is computed again is a part of its own."""
    shares = shares_again(again, footprint.config.text_config.num_hidden_layers)
    low_rank = rates.low_rank_at(max(footprint.trained.use_llm_lora, footprint.trained.use_backbone_lora, 1))
    per_flop = {"product": 1 / rates.products, "low rank": 1 / low_rank, "attention": 1 / rates.attention}
    seconds = dict.fromkeys(("products", "LoRA", "attention"), 0.0)
    names = {"product": "products", "low rank": "LoRA", "attention": "attention"}
    repeated = 0.0
    for work in footprint.work(shape):
        seconds[names[work.kind]] += work.forward * _times(work) * per_flop[work.kind]
        repeated += work.forward * shares[work.layers] * per_flop[work.kind]
    for moved in traffic(footprint, shape):
        seconds[f"{moved.part}, element by element"] = (moved.forward + moved.backward) / rates.bytes_per_s
        repeated += _moved_again(moved, shares, again) / rates.bytes_per_s
    return {**seconds, "computed again": repeated}


def _times(work: Work) -> float:
    """How many forward passes a part's forward and backward pass take."""
    if work.kind == "attention" and work.factor > 1:
        return 1 + _ATTENTION_BACKWARD
    return work.factor


def optimizer_seconds(trained: int, rates: Rates) -> float:
    """Of an optimizer step over so many weights."""
    return trained * _OPTIMIZER / rates.bytes_per_s
