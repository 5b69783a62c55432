"""Tier 3: the real shell script under torchrun and ZeRO-3 on two CPU ranks, killed and resumed."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from internvl_chat.__main__ import main
from internvl_chat.choices import CONTROLS
from internvl_chat.data.controls.base import switches
from internvl_chat.model.checkpoint import (
    LORA_WEIGHTS_NAME,
    TRAINED_MODULES_NAME,
    complete_checkpoints,
    load_captioner,
)
from tests.train.conftest import BASE_MODEL, SCRIPT, SMALL_RUN, StartScript, settings_of
from tests.train.running import finish, flags_from, kill_with_children, train_in_turn

pytestmark = pytest.mark.process


@pytest.fixture
def late_second_rank(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH: the second rank then takes three seconds longer to write its random state."""
    folder = tmp_path / "late"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        """import os
if os.environ.get("RANK") == "1":
    import time
    import torch

    save = torch.save

    def save_late(state, path, *args, **kwargs):
        if str(path).endswith("rng_state_1.pth"):
            time.sleep(3)
        save(state, path, *args, **kwargs)

    torch.save = save_late
"""
    )
    return folder


def losses(output_dir: Path) -> dict[int, float]:
    history = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["loss"] for entry in history if "loss" in entry}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, start_script: StartScript) -> Path:
    output_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(start_script(output_dir))
    return output_dir


def test_run_leaves_checkpoint_record_and_scalars(undisturbed: Path) -> None:
    record = json.loads((undisturbed / "run.json").read_text())
    assert record["world_size"] == 2
    assert record["model"]["num_adapter_layers"] == 2
    assert record["training"]["warmup_steps"] == 0.03
    assert 0 < record["parameters_trained"] < record["parameters"]
    assert record["versions"]["torch"]
    assert list((undisturbed / "runs").glob("*/events.out.tfevents.*"))
    assert [folder.name for folder in complete_checkpoints(undisturbed)] == ["checkpoint-2", "checkpoint-4"]
    assert "100%" in (undisturbed / "training_log.txt").read_text()


def test_checkpoint_holds_only_what_was_trained(undisturbed: Path) -> None:
    modules = load_file(undisturbed / "checkpoint-4" / TRAINED_MODULES_NAME)
    assert modules
    assert all("box_adapters." in name or "multi_modal_projector." in name for name in modules)
    lora = load_file(undisturbed / "checkpoint-4" / LORA_WEIGHTS_NAME)
    assert lora
    assert all("lora_" in name and "language_model" in name for name in lora)


def test_checkpoint_loads_on_top_of_its_base(undisturbed: Path) -> None:
    model = load_captioner(undisturbed / "checkpoint-4")
    adapters = [
        p for name, p in model.named_parameters() if ".box_adapters." in name and "attention_out.weight" in name
    ]
    assert len(adapters) == 2
    assert all(bool(p.any()) for p in adapters), "training left an adapter at its zero start"


def test_killed_run_goes_on_with_the_same_losses(
    undisturbed: Path, start_script: StartScript, late_second_rank: Path, tmp_path: Path
) -> None:
    output_dir = tmp_path / "run"
    process = start_script(output_dir, PYTHONPATH=str(late_second_rank))
    deadline = time.monotonic() + 240
    while not complete_checkpoints(output_dir):
        assert process.poll() is None, process.communicate()[0][-6000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kill_with_children(process)
    assert not (output_dir / "trainer_state.json").exists(), "the run was over before it was killed"
    cut_off = output_dir / "checkpoint-3"
    cut_off.mkdir()

    output = finish(start_script(output_dir, "--overwrite_output_dir", "False"))

    assert "checkpoint-3 was cut off while being written and is skipped" in output
    assert "resuming from" in output
    expected = losses(undisturbed)
    assert sorted(expected) == [1, 2, 3, 4]
    assert losses(output_dir) == expected


def test_another_number_of_ranks_goes_on_with_a_new_optimizer(
    undisturbed: Path, start_script: StartScript, tmp_path: Path
) -> None:
    before = load_file(undisturbed / "checkpoint-4" / TRAINED_MODULES_NAME)
    output_dir = shutil.copytree(undisturbed, tmp_path / "run")
    flags = "--overwrite_output_dir False --universal True --max_steps 5".split()
    output = finish(start_script(output_dir, *flags, GPUS="1"))

    assert "was written by 2 ranks, and this run has 1: weights, step and schedule go on" in output
    assert sorted(losses(output_dir)) == [1, 2, 3, 4, 5]
    after = load_file(output_dir / TRAINED_MODULES_NAME)
    # One step of AdamW moves a weight by the learning rate at most, four had moved the zeros further.
    for name in (name for name in before if "attention_out.weight" in name):
        assert before[name].float().abs().max() > 7e-5
        assert (after[name].float() - before[name].float()).abs().max() < 6e-5

    output = finish(start_script(output_dir, *flags, "--max_steps", "6"))
    assert "was written by 1 ranks, and this run has 2: weights, step and schedule go on" in output
    assert sorted(losses(output_dir)) == [1, 2, 3, 4, 5, 6]


@pytest.fixture(scope="module")
def in_turn(shapes_meta: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the script's flags in one start of torchrun, each a folder: `original`, `controls`, `packs`."""
    folder = tmp_path_factory.mktemp("in_turn")
    argv = ["convert", str(BASE_MODEL), str(folder / "base"), "--to", "original"]
    assert main(argv) == 0
    assert json.loads((folder / "base" / "config.json").read_text())["model_type"] == "internvl_chat"
    packs = "--max_packed_tokens 1200 --save_strategy steps --save_steps 1 --eval_strategy steps --eval_steps 1"
    packs += " --eval_videos 1 --load_best_model_at_end True --early_stopping_patience 2 --learning_rate 0"
    packs += f" --grad_checkpoint auto --frame_cache {folder / 'frames'}"
    ways = {
        "original": ((), {"MODEL_PATH": str(folder / "base")}),
        "controls": ((*switches(CONTROLS), *"--max_steps 1 --save_steps 1".split()), {}),
        "packs": (packs.split(), {"BATCH_SIZE": "2"}),
    }
    runs = []
    for name, (flags, other) in ways.items():
        settings = settings_of(shapes_meta, folder / name) | other
        runs.append((flags_from(SCRIPT, folder, *SMALL_RUN, *flags, **settings), str(folder / name), ""))
    train_in_turn(folder, runs)
    return folder


def test_the_same_base_in_the_original_layout_trains_alike(undisturbed: Path, in_turn: Path) -> None:
    assert losses(in_turn / "original") == losses(undisturbed)


@pytest.mark.parametrize(
    ("flags", "settings", "message"),
    [
        (["--conv_style", "internvl9"], {}, "unknown --conv_style 'internvl9'"),
        ([], {"META_PATH": "missing.json"}, "missing.json: not found"),
        ([], {"MODEL_PATH": "tests"}, "tests: is no checkpoint: it holds no config.json"),
    ],
)
def test_wrong_settings_give_one_message_and_a_non_zero_exit(
    start_script: StartScript, tmp_path: Path, flags: list[str], settings: dict[str, str], message: str
) -> None:
    process = start_script(tmp_path / "run", *flags, GPUS="1", **settings)
    output, _ = process.communicate(timeout=200)
    assert process.returncode != 0
    assert f"error: {message}" in output
    assert 'Traceback (most recent call last):\n  File "/' not in output.split("error: ")[0]


def test_base_ships_with_the_repository() -> None:
    weights = BASE_MODEL / "model.safetensors"
    assert weights.stat().st_size <= 4 * 2**20


def test_packs_and_validation_in_one_run(in_turn: Path) -> None:
    history = json.loads((in_turn / "packs" / "trainer_state.json").read_text())
    scores = [entry["eval_CIDEr"] for entry in history["log_history"] if "eval_CIDEr" in entry]
    # Nothing is learned at a rate of zero, so that the two evaluations after the first are the last.
    assert len(scores) == 3 and len(set(scores)) == 1
    assert history["best_model_checkpoint"].endswith("checkpoint-1")
    logged = next(entry for entry in history["log_history"] if "loss" in entry)
    assert logged["captions_per_s"] > 0 and 0 <= logged["data_wait_share"] <= 1 and logged["peak_memory_gb"] > 0
    assert logged["tflops_per_s"] > 0 and "mfu" not in logged, "a CPU's peak is not known"
    assert json.loads((in_turn / "packs" / "run.json").read_text())["samples"] == 25


def test_all_controls_train_in_one_run(in_turn: Path) -> None:
    trained = load_file(in_turn / "controls" / TRAINED_MODULES_NAME)
    assert any(".region_encoder." in name for name in trained) and any(".box_adapters." in name for name in trained)
    history = json.loads((in_turn / "controls" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "loss" in entry] == [1]
