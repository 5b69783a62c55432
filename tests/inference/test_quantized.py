"""Language models in 8 and in 4 bits: smaller, nearly alike, and nothing but the language model touched."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import PreTrainedTokenizerFast

from internvl_chat.__main__ import main
from internvl_chat.constants import IMG_CONTEXT
from internvl_chat.contracts import UserError
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.prompts.tokenizer import load_tokenizer
from internvl_chat.families import family_of
from internvl_chat.inference import weights
from internvl_chat.inference.handle import open_model
from internvl_chat.inference.weights import language_model_bytes
from internvl_chat.model.checkpoint import load_base, save_trained
from internvl_chat.model.trainable import TrainablePart
from tests.cogvlm2 import write_original
from tests.data.clips import write_clip
from tests.helpers import TILE_PX, TOKENS_PER_FRAME, randomise, tiny_base
from tests.minicpmv import write_minicpmv
from tests.tiny_idefics3 import write_tiny

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="requirements/quantize.txt is not installed"
)
WRITERS: dict[str, Callable[[Path], object]] = {
    "cogvlm2_video": write_original,
    "minicpmv": write_minicpmv,
    "idefics3": write_tiny,
}


@pytest.fixture(scope="module")
def cogvlm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized") / "cogvlm2"
    write_original(folder)
    return folder


@needs_bitsandbytes
@pytest.mark.parametrize("family", WRITERS)
@torch.no_grad()
def test_only_the_language_model_is_quantized(family: str, tmp_path: Path) -> None:
    WRITERS[family](tmp_path / "model")
    ids = torch.arange(20, 40)[None]
    plain = open_model(tmp_path / "model").load()
    expected = plain(input_ids=ids).logits
    model = open_model(tmp_path / "model", quantize_bits=8).load()
    kinds = {path: type(module).__name__ for path, module in model.named_modules()}
    quantized = [path for path, kind in kinds.items() if kind == "Linear8bitLt"]
    # Four matrices of attention and three of the feed-forward a layer.
    assert len(quantized) == 7 * model.config.text_config.num_hidden_layers
    language_model = family_of(model.config).parts.NAMES.language_model
    assert all(path.startswith(f"model.{language_model}.layers.") for path in quantized)
    assert language_model_bytes(model) < 0.7 * language_model_bytes(plain)
    assert (model(input_ids=ids).logits - expected).norm() < 0.05 * expected.norm()
    with pytest.raises(UserError, match="--quantize 4: .* on a CPU expected multiples of 64 and 32; give --quantize 8"):
        open_model(tmp_path / "model", quantize_bits=4).load()


@needs_bitsandbytes
@torch.no_grad()
def test_a_trained_checkpoint_is_quantized_with_what_it_learned(cogvlm2: Path, tmp_path: Path) -> None:
    base = load_base(str(cogvlm2), num_adapter_layers=0, dtype=torch.float32)
    lora = TrainablePart(3, freeze_llm=False, freeze_mlp=True, freeze_backbone=True).lora_config("llama", 0.1)
    trained = get_peft_model(base, lora, autocast_adapter_dtype=False)
    randomise((p for name, p in trained.named_parameters() if ".lora_" in name), seed=3)
    save_trained(trained, {name: p for name, p in trained.named_parameters() if ".lora_" in name}, tmp_path)
    load_tokenizer(cogvlm2).save_pretrained(tmp_path)
    ids = torch.arange(20, 40)[None]
    known, learned = (open_model(folder).load()(input_ids=ids).logits for folder in (cogvlm2, tmp_path))
    quantized = open_model(tmp_path, quantize_bits=8).load()(input_ids=ids).logits
    assert (quantized - learned).norm() < 0.2 * (known - learned).norm()


@pytest.fixture
def blocks_folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """A tiny InternVL whose matrices are multiples of what 4 bits are packed in."""
    text = {"hidden_size": 64, "intermediate_size": 192, "vocab_size": len(tokenizer)}
    text |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    image_token_id = tokenizer.convert_tokens_to_ids(IMG_CONTEXT)
    folder = tmp_path / "blocks"
    tiny_base(text=text, image_token_id=image_token_id).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    PromptConfig.of("internvl2_5", TILE_PX, TOKENS_PER_FRAME).save(folder)
    return folder


@needs_bitsandbytes
def test_a_quantized_model_captions_and_says_what_it_takes(
    blocks_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_clip(tmp_path / "a.mp4", 30)
    common = ["caption-videos", video, "--model", blocks_folder, "--num_workers", 0, "--max_new_tokens", 4]
    common += ["--strategy", "uniform3"]
    mib = []
    for bits in (8, 4):
        assert main([str(word) for word in (*common, "--out", tmp_path / str(bits), "--quantize", bits)]) == 0
        found = re.search(rf"language model in {bits} bits: ([0-9.]+) MiB of weights", capsys.readouterr().err)
        assert found is not None
        mib.append(float(found[1]))
        assert len((tmp_path / str(bits) / "captions.jsonl").read_text().splitlines()) == 1
    assert mib[1] < 0.9 * mib[0]
    assert main([str(word) for word in (*common, "--out", tmp_path / "8")]) == 1
    assert "holds captions of another model" in capsys.readouterr().err


def test_without_bitsandbytes_it_is_one_message_and_nothing_is_written(
    cogvlm2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    video = write_clip(tmp_path / "a.mp4", 3)
    argv = ["caption-videos", video, "--model", cogvlm2, "--out", tmp_path / "out", "--quantize", 8]
    assert main([str(word) for word in argv]) == 1
    told = "error: --quantize 8: bitsandbytes is not installed; install requirements/quantize.txt\n"
    assert capsys.readouterr().err == told
    assert not (tmp_path / "out").exists()
