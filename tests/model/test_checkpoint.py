"""Training checkpoints: only what was trained, bit for bit, on top of the base it belongs to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen2Config

from internvl_chat.contracts import UserError
from internvl_chat.model.checkpoint import (
    complete_checkpoints,
    file_sizes,
    half_written_checkpoints,
    is_training_checkpoint,
    list_files,
    load_base,
    load_captioner,
    load_config,
    load_trained,
    save_trained,
)
from internvl_chat.model.export import merge_checkpoint
from internvl_chat.model.trainable import TrainablePart
from tests.helpers import randomise, tiny_base
from tests.model.inputs import BOXES, boxed, inputs_of, plain_inputs

SCRIPT = TrainablePart(use_llm_lora=4, freeze_llm=False, freeze_mlp=False, freeze_backbone=True)
FULL_LLM = TrainablePart(use_llm_lora=0, freeze_llm=False, freeze_mlp=False, freeze_backbone=True)

# LoRA of two ranks, with the last ViT layer and the output layer trained whole beside it.
EVERYWHERE = TrainablePart(4, True, True, True, 3, unfrozen_vit_layers=range(2, 3), unfreeze_lm_head=True)


def trainee(base: Path, part: TrainablePart, dtype: torch.dtype = torch.float32, adapters: int = 2) -> Any:
    """A model as the training script builds it, with every trained parameter changed."""
    model: Any = load_base(str(base), num_adapter_layers=adapters, dtype=dtype)
    lora = part.lora_config("qwen2", dropout=0.05)
    if lora is not None:
        model = get_peft_model(model, lora, autocast_adapter_dtype=False)
    part.mark(model)
    randomise((p for p in model.parameters() if p.requires_grad), std=0.1)
    return model.eval()


def saved(model: Any, part: TrainablePart, folder: Path) -> Path:
    save_trained(model, {k: v for k, v in model.state_dict().items() if k in part}, folder)
    return folder


@torch.no_grad()
def logits_of(model: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    inputs = inputs_of()
    inputs["vision"] = {"pixel_values": inputs["vision"]["pixel_values"].to(dtype)}
    return model(**boxed(inputs, BOXES)).logits


@pytest.fixture(scope="module")
def checkpoint(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What training with LoRA saves; read only."""
    return saved(trainee(base_folder, SCRIPT), SCRIPT, tmp_path_factory.mktemp("run") / "checkpoint-7")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("part", [SCRIPT, FULL_LLM, EVERYWHERE], ids=["lora", "full llm", "everywhere"])
def test_a_checkpoint_comes_back_bit_for_bit(
    part: TrainablePart, dtype: torch.dtype, base_folder: Path, tmp_path: Path
) -> None:
    model = trainee(base_folder, part, dtype)
    again = load_captioner(saved(model, part, tmp_path), dtype=dtype)
    assert not again.training
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert {t.dtype for t in theirs.values()} == {dtype}
    assert torch.equal(logits_of(again, dtype), logits_of(model, dtype))


def test_a_checkpoint_of_a_base_with_tied_embeddings_comes_back(tmp_path: Path) -> None:
    """Some language models share the embedding with the head; trained in full, it is one tensor with two names."""
    tiny_base(text={"tie_word_embeddings": True}, tie_word_embeddings=True).save_pretrained(tmp_path / "base")
    model = trainee(tmp_path / "base", FULL_LLM)
    again = load_captioner(saved(model, FULL_LLM, tmp_path / "checkpoint"), dtype=torch.float32)
    assert torch.equal(logits_of(again), logits_of(model))


def test_files_hold_what_was_trained_and_nothing_else(base_folder: Path, checkpoint: Path) -> None:
    model = trainee(base_folder, SCRIPT)
    modules = load_file(checkpoint / "trained_modules.safetensors")
    lora = load_file(checkpoint / "adapter_model.safetensors")
    trained = {n.removeprefix("base_model.model.") for n, p in model.named_parameters() if p.requires_grad}
    assert modules.keys() == {n for n in trained if ".lora_" not in n}
    assert all(".box_adapters." in n or ".multi_modal_projector." in n for n in modules)
    assert len(lora) == sum(".lora_" in n for n in trained) and all(".lora_" in n for n in lora)
    numbers = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(t.numel() for t in [*modules.values(), *lora.values()]) == numbers
    assert {p.name for p in checkpoint.iterdir() if p.suffix != ".md"} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "trained_modules.safetensors",
    }
    assert is_training_checkpoint(checkpoint) and not is_training_checkpoint(base_folder)


def test_training_state_is_read_back_into_the_model_that_goes_on(base_folder: Path, checkpoint: Path) -> None:
    model, expected = trainee(base_folder, SCRIPT), trainee(base_folder, SCRIPT)
    randomise((p for p in model.parameters() if p.requires_grad), seed=99)
    load_trained(model, checkpoint)
    assert torch.equal(logits_of(model), logits_of(expected))
    assert isinstance(model, PeftModel)
    assert all(p.requires_grad == (n in SCRIPT) for n, p in model.named_parameters())


def test_a_moved_base_is_asked_for_and_can_be_given(tmp_path: Path, base_folder: Path) -> None:
    shutil.copytree(base_folder, tmp_path / "base")
    model = trainee(tmp_path / "base", SCRIPT)
    folder = saved(model, SCRIPT, tmp_path / "checkpoint")
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=f"{tmp_path / 'base'}, which is not there.*--base"):
        load_captioner(folder, dtype=torch.float32)
    again = load_captioner(folder, base_path=str(tmp_path / "moved"), dtype=torch.float32)
    assert torch.equal(logits_of(again), logits_of(model))


@pytest.mark.parametrize(
    "changes",
    [
        {"text": {"hidden_size": 16, "intermediate_size": 28}},
        {"text": {"num_hidden_layers": 1}},
        {"text": {"num_hidden_layers": 3}},
        {"vision": {"hidden_size": 36}},
        {"vision": {"num_hidden_layers": 2}},
    ],
    ids=["narrower llm", "fewer llm layers", "more llm layers", "wider vit", "fewer vit layers"],
)
def test_a_checkpoint_on_another_base_is_refused(changes: dict[str, Any], checkpoint: Path, tmp_path: Path) -> None:
    tiny_base(**changes).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="base"):
        load_captioner(checkpoint, base_path=str(tmp_path / "other"), dtype=torch.float32)


@pytest.mark.parametrize(
    ("part", "adapters"),
    [
        (SCRIPT, 3),
        (SCRIPT, 1),
        (TrainablePart(2, False, False, True), 2),
    ],
    ids=["more adapters", "fewer adapters", "other rank"],
)
def test_a_checkpoint_does_not_go_on_in_a_model_of_another_geometry(
    part: TrainablePart, adapters: int, base_folder: Path, checkpoint: Path
) -> None:
    with pytest.raises(UserError, match=str(checkpoint)):
        load_trained(trainee(base_folder, part, adapters=adapters), checkpoint)


@pytest.mark.parametrize("name", ["trained_modules.safetensors", "adapter_model.safetensors"])
@pytest.mark.parametrize("damage", ["cut off", "missing"])
def test_a_damaged_file_is_named(name: str, damage: str, base_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:-100])
    with pytest.raises(UserError, match=str(folder / name)):
        load_trained(trainee(base_folder, SCRIPT), folder)


def test_a_checkpoint_with_a_damaged_lora_file_is_named_when_it_is_opened(checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=str(path)):
        load_captioner(folder, dtype=torch.float32)


@pytest.mark.parametrize("adapters", [0, 2])
def test_lora_on_both_parts_and_whole_layers_are_merged(adapters: int, base_folder: Path, tmp_path: Path) -> None:
    model = trainee(base_folder, EVERYWHERE, adapters=adapters)
    merge_checkpoint(saved(model, EVERYWHERE, tmp_path / "trained"), tmp_path / "merged")
    merged = load_captioner(tmp_path / "merged", dtype=torch.float32)
    expected = model.merge_and_unload().state_dict()
    assert merged.state_dict().keys() == expected.keys()
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], msg=name)
    base = load_base(str(base_folder), num_adapter_layers=adapters, dtype=torch.float32).state_dict()
    changed = {name.rsplit(".", 1)[0] for name in base if not torch.equal(base[name], expected[name])}
    assert {"lm_head", "model.vision_tower.encoder.layer.2.layernorm_after"} < changed
    assert "model.vision_tower.encoder.layer.1.mlp.fc1" in changed
    assert "model.vision_tower.encoder.layer.1.layernorm_after" not in changed


def test_a_plain_base_is_opened_without_adapters(base_folder: Path) -> None:
    model = load_captioner(base_folder, dtype=torch.float32)
    assert not [n for n, _ in model.named_parameters() if ".box_adapters." in n]
    with torch.no_grad():
        assert torch.equal(logits_of(model), tiny_base()(**plain_inputs()).logits)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        load_config(str(tmp_path))
    with pytest.raises(UserError, match=str(tmp_path / "none")):
        load_config(str(tmp_path / "none"))


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    config = Qwen2Config(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=9,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="'qwen2' model.*'internvl'"):
        load_config(str(tmp_path))


def test_checkpoints_are_complete_with_a_whole_mark_and_all_their_files(tmp_path: Path) -> None:
    states = {"100": "{}", "3": None, "20": "{}", "4": '{"epoch": 0.', "200": "{}", "5": "{}", "6": "{}"}
    for step, state in states.items():
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "global_step").mkdir(parents=True)
        for name in ("config.json", "global_step/rank-0", "global_step/rank-1"):
            (folder / name).write_text("state")
        list_files(folder, [file_sizes(folder)])
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-5" / "global_step" / "rank-1").unlink()
    (tmp_path / "checkpoint-6" / "global_step" / "rank-0").write_text("st")
    (tmp_path / "runs").mkdir()
    (tmp_path / "trainer_state.json").touch()
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["checkpoint-20", "checkpoint-100", "checkpoint-200"]
    cut_off = ["checkpoint-3", "checkpoint-4", "checkpoint-5", "checkpoint-6"]
    assert [p.name for p in half_written_checkpoints(tmp_path)] == cut_off
    assert complete_checkpoints(tmp_path / "none") == half_written_checkpoints(tmp_path / "none") == []
