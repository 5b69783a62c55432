"""What several test modules build: a byte-level tokenizer, a tiny InternVL, commands in a process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import InternVLConfig, InternVLForConditionalGeneration, PreTrainedTokenizerFast

from internvl_chat.constants import SPECIAL_TOKENS

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

# Sizes of the tiny model; no two alike, so that an axis taken for another one shows.
PATCH_PX, VIT_WIDTH, VIT_LAYERS, LLM_WIDTH = 10, 30, 3, 24
TILE_PX, TOKENS_PER_FRAME = 40, 4
IMAGE_TOKEN_ID = 7


def shared(name: str) -> Path:
    """A file or folder handed to developers beside the repository; the test is skipped where it is not."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path


def run_python(*argv: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Python as a user would, from the repository's root."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, argv)], cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and one for each of the chat's and InternVL's special tokens."""
    chat_tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    symbols = chat_tokens + sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", *SPECIAL_TOKENS],
        clean_up_tokenization_spaces=False,
    )


def tiny_config(**changes: Any) -> InternVLConfig:
    """A native InternVL of a few thousand weights, drawn widely enough for its logits to differ clearly."""
    vision = {
        "hidden_size": VIT_WIDTH,
        "num_hidden_layers": VIT_LAYERS,
        "num_attention_heads": 3,
        "intermediate_size": 42,
        "attention_bias": True,
        "image_size": [TILE_PX, TILE_PX],
        "patch_size": [PATCH_PX, PATCH_PX],
        "layer_scale_init_value": 1.0,
        "initializer_range": 0.2,
    }
    text = {
        "model_type": "qwen2",
        "hidden_size": LLM_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 28,
        "vocab_size": 61,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
    }
    fields: dict[str, Any] = {
        "image_token_id": IMAGE_TOKEN_ID,
        "image_seq_length": TOKENS_PER_FRAME,
        "tie_word_embeddings": False,
    }
    vision |= changes.pop("vision", {})
    text |= changes.pop("text", {})
    return InternVLConfig(vision_config=vision, text_config=text, **{**fields, **changes})


def tiny_base(seed: int = 0, **changes: Any) -> InternVLForConditionalGeneration:
    """The native model of `tiny_config`, in eval mode."""
    torch.manual_seed(seed)
    return InternVLForConditionalGeneration(tiny_config(**changes)).eval()


def randomise(parameters: Any, std: float = 0.3, seed: int = 5) -> None:
    """Draw the parameters anew, so that nothing stays zero by chance of initialisation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def linked_package(folder: Path) -> Path:
    """A folder with this package in it, all its files links."""
    package = folder / "with_example"
    for path in (ROOT / "internvl_chat").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            link = package / path.relative_to(ROOT)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return package


def package_with_example(page: str, folder: Path) -> Path:
    """A folder with this package in it, and the example file of a page of docs/adding; other files are links."""
    package = linked_package(folder)
    text = (ROOT / page).read_text(encoding="utf-8")
    example = re.search(r"`(internvl_chat/[\w/]+\.py)`:\n\n```python\n(.+?)```", text, re.DOTALL)
    assert example is not None
    (package / example[1]).write_text(example[2], encoding="utf-8")
    return package
