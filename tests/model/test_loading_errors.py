"""What can be wrong with a checkpoint's files: one message each, before weights are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from internvl_chat.contracts import UserError
from internvl_chat.model.checkpoint import load_base, load_captioner, load_trained, save_trained
from internvl_chat.model.export import convert_checkpoint, merge_checkpoint
from internvl_chat.model.trainable import TrainablePart, lora_target_pattern
from tests.model.original_reference import write_checkpoint

TRAINED = TrainablePart(use_llm_lora=2, freeze_llm=False, freeze_mlp=False, freeze_backbone=True)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A `-hf` checkpoint in several shards."""
    write_checkpoint(tmp_path / "original", "qwen2")
    convert_checkpoint(tmp_path / "original", tmp_path / "sharded", "hf", max_shard_bytes=150_000)
    return tmp_path / "sharded"


def change_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def set_layers(folder: Path, part: str, count: int) -> None:
    change_config(folder, lambda fields: fields[part].update(num_hidden_layers=count))


def remove_shard(folder: Path) -> None:
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def cut_off_shard(folder: Path) -> None:
    path = sorted(folder.glob("model-*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-1000])


def reshape_tensor(folder: Path) -> None:
    for path in folder.glob("model-*.safetensors"):
        tensors = load_file(path)
        if "multi_modal_projector.linear_1.weight" in tensors:
            tensors["multi_modal_projector.linear_1.weight"] = torch.zeros(7, 11)
            save_file(tensors, path)


def drop_tensor(folder: Path) -> None:
    path = sorted(folder.glob("model-*.safetensors"))[0]
    tensors = load_file(path)
    tensors.popitem()
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_shard, r"1 of \d+ shards are missing, such as model-00002-of"),
        (cut_off_shard, r"model-00002-of-\d+\.safetensors: is cut off"),
        (reshape_tensor, r"linear_1\.weight is \[7, 11\]: expected \[48, 144\] by its config\.json"),
        (drop_tensor, r"model-00001-of-\d+\.safetensors: lacks .*, which model\.safetensors\.index\.json places there"),
        (lambda folder: (folder / "config.json").unlink(), r"is no checkpoint: it holds no config\.json"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: cannot be read as JSON"),
        (lambda folder: change_config(folder, lambda f: f.update(model_type="bert")), r"is a 'bert' model, expected"),
        (lambda folder: set_layers(folder, "text_config", 9), "is no valid configuration"),
        (lambda folder: set_layers(folder, "vision_config", 1), "not the model's"),
        (lambda folder: set_layers(folder, "vision_config", 9), "are missing"),
    ],
)
def test_damaged_folder(sharded: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(sharded)
    with pytest.raises(UserError, match=message) as caught:
        load_captioner(sharded)
    assert str(sharded) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no weights"):
        write_checkpoint(tmp_path / "bare", "llama")
        (tmp_path / "bare" / "model.safetensors").unlink()
        load_captioner(tmp_path / "bare")
    with pytest.raises(UserError, match="neither a checkpoint folder nor a model of the hub"):
        load_base(str(tmp_path / "nothing"), num_adapter_layers=1, dtype=torch.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["llm_config"].update(architectures=["GPT2LMHeadModel"]), "unknown language model"),
        (lambda f: f.update(ps_version="v1"), "ps_version is 'v1'"),
        (lambda f: f.pop("vision_config"), "has no vision_config"),
        (lambda f: f["llm_config"].update(num_key_value_heads=3), r"wqkv.* has 80 rows: the configuration says 96"),
    ],
)
def test_original_configuration_that_cannot_be_followed(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    write_checkpoint(tmp_path / "original", "internlm2")
    change_config(tmp_path / "original", change)
    with pytest.raises(UserError, match=message):
        load_captioner(tmp_path / "original")


def write_training_checkpoint(base: Path, folder: Path) -> None:
    torch.manual_seed(4)
    model = load_base(str(base), num_adapter_layers=2, dtype=torch.float32)
    lora = LoraConfig(r=2, lora_alpha=4, target_modules=lora_target_pattern(model.config.text_config.model_type))
    wrapped = get_peft_model(model, lora)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if name in TRAINED:
                parameter.normal_(std=0.2)
    save_trained(wrapped, {n: p for n, p in wrapped.state_dict().items() if n in TRAINED}, folder)


@pytest.mark.parametrize("llm", ["internlm2", "phi3", "qwen2"])
def test_merged_is_base_and_adapter(llm: str, tmp_path: Path) -> None:
    """Trained on an original base, merged, exported: the same logits."""
    write_checkpoint(tmp_path / "base", llm)
    write_training_checkpoint(tmp_path / "base", tmp_path / "trained")
    merge_checkpoint(tmp_path / "trained", tmp_path / "merged")
    convert_checkpoint(tmp_path / "merged", tmp_path / "exported", "original")
    states = [load_captioner(tmp_path / name, dtype=torch.float32) for name in ("trained", "merged", "exported")]
    folded = states[0].merge_and_unload().state_dict()
    for other in (states[1].state_dict(), states[2].state_dict()):
        assert other.keys() == folded.keys()
        assert all(torch.allclose(other[name], tensor, atol=1e-6) for name, tensor in folded.items())


def test_another_base_is_refused(tmp_path: Path) -> None:
    for name, seed in (("base", 0), ("other", 1)):
        write_checkpoint(tmp_path / name, "llama", seed=seed)
    write_training_checkpoint(tmp_path / "base", tmp_path / "trained")
    message = "was trained on another base: expected one with fingerprint [0-9a-f]{16} .*" + re.escape("other has ")
    with pytest.raises(UserError, match=message):
        load_captioner(tmp_path / "trained", base_path=str(tmp_path / "other"))
    with pytest.raises(UserError, match=message):
        merge_checkpoint(tmp_path / "trained", tmp_path / "merged", base_path=str(tmp_path / "other"))
    with pytest.raises(UserError, match="was trained on another base"):
        other = load_base(str(tmp_path / "other"), num_adapter_layers=2, dtype=torch.float32)
        load_trained(other, tmp_path / "trained")


def test_the_same_base_in_the_other_layout_is_accepted(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "base", "internlm2")
    convert_checkpoint(tmp_path / "base", tmp_path / "hf", "hf")
    write_training_checkpoint(tmp_path / "base", tmp_path / "trained")
    load_captioner(tmp_path / "trained", base_path=str(tmp_path / "hf"))


def test_convert_refuses_what_is_not_complete(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "base", "llama")
    write_training_checkpoint(tmp_path / "base", tmp_path / "trained")
    with pytest.raises(UserError, match="make a complete model of it with 'merge' first"):
        convert_checkpoint(tmp_path / "trained", tmp_path / "out", "hf")
    with pytest.raises(UserError, match="is not empty"):
        convert_checkpoint(tmp_path / "base", tmp_path / "trained", "hf")
