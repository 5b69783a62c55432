"""A miniature of MiniCPM-Llama3-V 2.5 in the original layout, with a tokenizer of one token a byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from internvl_chat.data.families.minicpmv import SPECIAL_TOKENS
from internvl_chat.model.conversion.weight_files import LazyTensor, write_weights
from internvl_chat.model.families.minicpmv.original import native_config, weight_map
from internvl_chat.model.loading import expected_shapes
from tests.helpers import byte_tokenizer

# Sizes of the tiny model; no two alike, but for the width, which the resampler's heads of 128 channels ask for.
QUERIES, TOWER_WIDTH, WIDTH, LAYERS = 5, 36, 128, 2


def llama3_tokenizer() -> PreTrainedTokenizerFast:
    """The byte tokenizer with the tokens of Llama 3's headers and of MiniCPM-V's pictures."""
    made = byte_tokenizer()
    made.add_tokens([*SPECIAL_TOKENS, "<|begin_of_text|>"], special_tokens=True)
    made.bos_token, made.eos_token = "<|begin_of_text|>", "<|eot_id|>"
    return made


def original_fields(vocab_size: int, **changes: Any) -> dict[str, Any]:
    """The content of a config.json as the original has it."""
    return {
        "architectures": ["MiniCPMV"],
        "model_type": "minicpmv",
        "version": "2.5",
        "vocab_size": vocab_size,
        "hidden_size": WIDTH,
        "intermediate_size": 72,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 4096,
        "rope_theta": 500000.0,
        "rms_norm_eps": 1e-5,
        "query_num": QUERIES,
        "drop_vision_last_layer": False,
        "slice_config": {"max_slice_nums": 9, "patch_size": 14, "scale_resolution": 448},
        "vision_config": {
            "model_type": "idefics2",
            "hidden_size": TOWER_WIDTH,
            "intermediate_size": 44,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "image_size": 126,
            "patch_size": 14,
        },
        "tie_word_embeddings": False,
        **changes,
    }


def write_minicpmv(folder: Path, **changes: Any) -> Path:
    """A checkpoint with random weights."""
    tokenizer = llama3_tokenizer()
    fields = original_fields(len(tokenizer), **changes)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(fields))
    tokenizer.save_pretrained(folder)
    config = native_config(fields, folder)
    generator = torch.Generator().manual_seed(8)
    tensors = {
        path: LazyTensor(shape, torch.float32, lambda shape=shape: torch.randn(shape, generator=generator) * 0.1)
        for path, shape in expected_shapes(config).items()
    }
    write_weights(folder, weight_map(config).to_original(tensors), max_shard_bytes=10**9)
    return folder
