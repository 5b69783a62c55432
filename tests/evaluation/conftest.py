"""A checkpoint that can be asked about the shapes, and captions to score."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from internvl_chat.constants import IMG_CONTEXT
from internvl_chat.data.annotations import read_captions
from internvl_chat.data.encoder import PromptConfig
from internvl_chat.model import IntentVCNetConfig, IntentVCNetForConditionalGeneration
from tests.helpers import TILE_PX, TOKENS_PER_FRAME, randomise, tiny_config


@pytest.fixture(scope="session")
def captioner_folder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny model of random weights with its tokenizer and prompt configuration; read only."""
    folder = tmp_path_factory.mktemp("captioner") / "tiny"
    text = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = tiny_config(text=text, image_token_id=tokenizer.convert_tokens_to_ids(IMG_CONTEXT))
    torch.manual_seed(3)
    model = IntentVCNetForConditionalGeneration(IntentVCNetConfig.from_base(config, 2))
    randomise(p for n, p in model.named_parameters() if ".box_adapters." in n)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    PromptConfig("internvl2_5", TILE_PX, TOKENS_PER_FRAME).save(folder)
    return folder


@pytest.fixture(scope="session")
def captions_file() -> Path:
    """Twelve made-up videos of four categories with five captions each, in the challenge's form."""
    return Path(__file__).parent / "data" / "captions.json"


@pytest.fixture(scope="session")
def captions(captions_file: Path) -> dict[str, list[str]]:
    return read_captions(captions_file)
