"""The trainer in one process: the same step however its samples are cut into batches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from internvl_chat.contracts import UserError
from internvl_chat.files import read_json, write_json
from internvl_chat.model.checkpoint import complete_checkpoints
from internvl_chat.train.finetune_w_bboxes_ml import parse_arguments, train
from tests.train.conftest import BASE_MODEL

pytestmark = pytest.mark.process

FLAGS = (
    "--force_image_size 80 --min_num_frame 2 --max_num_frame 4 --num_adapter_layers 2 --use_llm_lora 4 --max_steps 3 "
    "--save_steps 3 --logging_steps 1 --learning_rate 0.1 --optim sgd --lora_dropout 0 --grad_checkpoint False "
    "--report_to none --freeze_backbone True --down_sample_ratio 0.5 --disable_tqdm True"
)


def run(meta: Path, folder: Path, flags: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    argv = [*FLAGS.split(), *flags.split()]
    argv += ["--model_name_or_path", str(BASE_MODEL), "--meta_path", str(meta), "--output_dir", str(folder)]
    train(parse_arguments(argv))
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    tensors = {k: t for path in folder.glob("*.safetensors") for k, t in load_file(path).items()}
    return [entry["loss"] for entry in history if "loss" in entry], tensors


@pytest.mark.parametrize("reduction", ["token", "sample"])
def test_a_step_does_not_depend_on_how_it_is_cut_into_passes(reduction: str, shapes_meta: Path, tmp_path: Path) -> None:
    # Plain SGD: Adam would blow up the rounding of gradients that are zero.
    cuts = {
        "together": "--per_device_train_batch_size 6",
        "accumulated": "--per_device_train_batch_size 1 --gradient_accumulation_steps 6",
        "uneven": "--per_device_train_batch_size 4 --gradient_accumulation_steps 2",
    }
    results = {
        name: run(shapes_meta, tmp_path / name, f"{flags} --loss_reduction {reduction}") for name, flags in cuts.items()
    }
    losses, tensors = results["together"]
    assert losses[0] != losses[-1]
    for name in ("accumulated", "uneven"):
        other_losses, other = results[name]
        assert other_losses == pytest.approx(losses, rel=1e-4), name
        for key, tensor in tensors.items():
            assert torch.allclose(other[key], tensor, rtol=1e-3, atol=1e-6), (name, key)


def meta_with_broken_videos(meta: Path, folder: Path, count: int) -> Path:
    """The dataset with so many of its six ids' videos cut to nothing: each is five of thirty samples."""
    clips = folder / "clips"
    entry = read_json(meta)["shapes"]
    shutil.copytree(entry["root"], clips)
    for video in sorted(clips.glob("*/*-1/*.mp4"))[:count]:
        video.write_bytes(b"")
    write_json(folder / "meta.json", {"shapes": {**entry, "root": str(clips)}})
    return folder / "meta.json"


def test_broken_samples_are_left_out_and_named(
    shapes_meta: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meta = meta_with_broken_videos(shapes_meta, tmp_path, 1)
    losses, _ = run(meta, tmp_path / "run", "--per_device_train_batch_size 1 --max_steps 6")
    assert len(losses) == 6
    assert losses.count(0.0) == 1, "the pass that cannot be read counts nothing, and no other stands in for it"
    named = [record.getMessage() for record in caplog.records if record.getMessage().startswith("skipped ")]
    assert len(named) == 5 and all("train.jsonl:" in line and ".mp4" in line for line in named)


def test_too_many_broken_samples_stop_the_run_with_their_list(shapes_meta: Path, tmp_path: Path) -> None:
    meta = meta_with_broken_videos(shapes_meta, tmp_path, 2)
    expected = r"(?s)6 of 30 samples cannot be used, more than --max_bad_fraction 0.001.*train.jsonl:.*\.mp4"
    with pytest.raises(UserError, match=expected):
        run(meta, tmp_path / "run", "--per_device_train_batch_size 6")


def test_bad_samples_before_a_kill_count_behind_it(shapes_meta: Path, tmp_path: Path) -> None:
    """Two of six videos are broken, a third of the samples: each half of the run meets one of them."""
    meta = meta_with_broken_videos(shapes_meta, tmp_path, 2)
    flags = "--per_device_train_batch_size 1 --max_steps 6 --save_steps 1 --max_bad_fraction 0.2"
    out = tmp_path / "run"
    with pytest.raises(UserError, match="of 30 samples cannot be used"):
        run(meta, out, flags)
    assert complete_checkpoints(out)
    with pytest.raises(UserError, match="of 30 samples cannot be used"):
        run(meta, out, f"{flags} --overwrite_output_dir False")


@pytest.mark.parametrize("ended", ["at its last step", "early"])
def test_a_run_that_had_ended_takes_no_step_more(ended: str, shapes_meta: Path, tmp_path: Path) -> None:
    flags = "--per_device_train_batch_size 1 --save_steps 1"
    if ended == "early":
        flags += " --max_steps 9 --eval_strategy steps --eval_steps 1 --eval_videos 1 --load_best_model_at_end True"
        flags += " --early_stopping_patience 2 --learning_rate 0"
    losses, tensors = run(shapes_meta, tmp_path / "run", flags)
    assert len(losses) == 3
    again, same = run(shapes_meta, tmp_path / "run", f"{flags} --overwrite_output_dir False")
    assert again == losses
    assert all(torch.equal(same[name], tensor) for name, tensor in tensors.items())


def test_early_stopping_counts_on_behind_a_kill(shapes_meta: Path, tmp_path: Path) -> None:
    flags = "--per_device_train_batch_size 1 --save_steps 1 --eval_strategy steps --eval_steps 1 --eval_videos 1"
    flags += " --load_best_model_at_end True --early_stopping_patience 4 --learning_rate 0"
    out = tmp_path / "run"
    losses, _ = run(shapes_meta, out, f"{flags} --max_steps 3")
    assert len(losses) == 3, "not yet: the first evaluation is the best, two more were no better"
    losses, _ = run(shapes_meta, out, f"{flags} --max_steps 9 --overwrite_output_dir False")
    assert len(losses) == 5


def test_nothing_of_another_run_is_left_in_a_checkpoint(shapes_meta: Path, tmp_path: Path) -> None:
    old = tmp_path / "run" / "checkpoint-3"
    old.mkdir(parents=True)
    (old / "rng_state_7.pth").touch()
    run(shapes_meta, tmp_path / "run", "--per_device_train_batch_size 1 --overwrite_output_dir True")
    assert complete_checkpoints(tmp_path / "run") == [old]
    assert not (old / "rng_state_7.pth").exists() and not (old / "replaced").exists()
