"""How fast prediction can be fed here: processes that decode pictures, and tokens whose keys and values have room."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from internvl_chat.inference.ranks import Ranks
from internvl_chat.model.loading import expected_shapes

# A clip of 2,500 frames takes a core for 1.7 s, a large GPU reads four in that time; beyond eight they wait for disks.
MOST_WORKERS = 8
# 3.8 GB of keys and values of an 8B; on a CPU, where more at a time is no faster, this is what a batch may keep.
STEP_TOKENS = 65536
MOST_TOKENS = 16 * STEP_TOKENS
# Of the memory that weights leave: the rest is for what passes through the layers, for scores, and lost between blocks.
KEPT_SHARE = 0.6


def default_workers() -> int:
    """Processes that decode ahead for a rank: its share of the cores that this process may use."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0)) // ranks))


def default_batch_tokens(configs: Sequence[Any], ranks: Ranks) -> int:
    """Tokens of keys and values that a batch may keep beside these models' weights, the same on every rank.

    In steps of `STEP_TOKENS`, so that a few megabytes more or less do not put asks into other batches.
    """
    steps = _steps_of_gpu(configs, ranks) if ranks.device.type == "cuda" else 1
    return min(ranks.gathered(steps)) * STEP_TOKENS


def _steps_of_gpu(configs: Sequence[Any], ranks: Ranks) -> int:
    free_bytes, _ = torch.cuda.mem_get_info(ranks.device)
    element = ranks.dtype.itemsize
    weights = sum(shape.numel() for config in configs for shape in expected_shapes(config).values()) * element
    room = KEPT_SHARE * (free_bytes - weights)
    tokens = int(room // sum(_bytes_a_token(config.text_config, element) for config in configs))
    return max(1, min(MOST_TOKENS, tokens) // STEP_TOKENS)


def _bytes_a_token(text: Any, element_bytes: int) -> int:
    """Keys and values in all layers."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * text.num_key_value_heads * head * element_bytes)
