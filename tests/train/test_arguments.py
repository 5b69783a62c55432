"""The training script's flags and what they become."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from internvl_chat.contracts import Sample, Turn, UserError
from internvl_chat.data.prompt_config import PromptConfig
from internvl_chat.model.checkpoint import COMPLETION_MARK_NAME
from internvl_chat.train.arguments import DataArguments, FinetuneArguments
from internvl_chat.train.finetune_w_bboxes_ml import checkpoint_to_resume, note_replaced_checkpoints
from internvl_chat.train.planning import layers_to_recompute, offloads, zero_stage
from internvl_chat.train.validation import Validation, hold_out
from tests.helpers import ROOT


def test_every_setting_of_the_prompt_is_a_flag_with_the_same_default() -> None:
    flags = {field.name: field.default for field in fields(DataArguments)}
    settings = {field.name: field.default for field in fields(PromptConfig)}
    assert settings.keys() - flags.keys() == {"tokens_per_frame"}  # follows from the model
    optional = {name: default for name, default in settings.items() if default is not MISSING}
    # The flag's default is InternVL's; a configuration made without flags is IntentVCNet's.
    assert {name for name, default in optional.items() if flags[name] != default} == {"max_seq_length"}


def arguments(folder: Path, **given: object) -> FinetuneArguments:
    return FinetuneArguments(output_dir=str(folder), report_to="none", **given)  # type: ignore[arg-type]


def test_evaluation_comes_with_the_checkpoints_unless_asked_otherwise(tmp_path: Path) -> None:
    assert arguments(tmp_path, eval_strategy="steps", save_steps=70, logging_steps=1).eval_steps == 70
    assert arguments(tmp_path, eval_strategy="steps", save_steps=70, eval_steps=9).eval_steps == 9


def test_warmup_steps_win_over_the_scripts_ratio(tmp_path: Path) -> None:
    assert arguments(tmp_path, warmup_ratio=0.03).warmup_steps == 0.03
    assert arguments(tmp_path, warmup_ratio=0.03, warmup_steps=12).warmup_steps == 12


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"early_stopping_patience": 3}, "needs --eval_strategy"),
        ({"dataloader_persistent_workers": True, "dataloader_num_workers": 1}, "--dataloader_persistent_workers"),
        ({"warmup_ratio": 1.5}, "expected 0 to 1"),
    ],
)
def test_flags_that_cannot_work_are_refused(given: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        arguments(tmp_path, **given)


@pytest.mark.parametrize(("flag", "layers"), [("True", 28), ("False", 0), ("auto", None), ("7", 7), ("28", 28)])
def test_how_many_layers_are_recomputed(flag: str, layers: int | None) -> None:
    assert layers_to_recompute(flag, 28) == layers


@pytest.mark.parametrize("flag", ["29", "-1", "yes", "1.5"])
def test_an_impossible_number_of_layers_is_refused(flag: str) -> None:
    with pytest.raises(UserError, match=f"--grad_checkpoint {flag}: expected .* up to 28"):
        layers_to_recompute(flag, 28)


def test_offloading_is_read_off_the_deepspeed_file() -> None:
    files = sorted((ROOT / "shell" / "deepspeed").glob("*.json"))
    assert {offloads(str(path)) for path in files} == {True, False}
    assert all(offloads(str(path)) == ("offload" in path.name) for path in files)
    assert not offloads(None) and zero_stage(None) == 0
    assert not offloads({"zero_optimization": {"stage": 3, "offload_param": {"device": "none"}}})


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / COMPLETION_MARK_NAME).write_text("")
    return folder


def test_a_run_that_started_anew_never_goes_on_from_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "out"
    old = checkpoint(out / "checkpoint-40")
    anew, go_on = (arguments(out, overwrite_output_dir=flag) for flag in (True, False))
    assert checkpoint_to_resume(go_on) == old
    assert checkpoint_to_resume(anew) is None
    note_replaced_checkpoints(out)
    assert checkpoint_to_resume(go_on) is None, "killed before it saved anything"
    new = checkpoint(out / "checkpoint-20")
    assert checkpoint_to_resume(go_on) == new


def test_resume_from_checkpoint_takes_words_and_paths(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="--resume_from_checkpoint True: .* holds no complete checkpoint"):
        checkpoint_to_resume(arguments(out, overwrite_output_dir=True, resume_from_checkpoint="True"))
    old = checkpoint(out / "checkpoint-40")
    for word, overwrite, found in (
        ("True", True, old),
        ("False", True, None),
        ("elsewhere/c-1", True, Path("elsewhere/c-1")),
    ):
        args = arguments(out, overwrite_output_dir=overwrite, resume_from_checkpoint=word)
        assert checkpoint_to_resume(args) == found


def test_only_videos_are_held_out() -> None:
    videos = [Sample(str(n), (), f"v.jsonl:{n}", video_path=Path(f"{n // 2}.mp4")) for n in range(6)]
    others = [Sample(str(n), (), f"t.jsonl:{n}") for n in range(9)]
    for seed in range(8):
        train, held_out = hold_out([*others, *videos], 2, seed)
        assert len(held_out) == 4 and all(sample.video_path for sample in held_out)
        assert len(train) == 11
    with pytest.raises(UserError, match="the data has 3 videos"):
        hold_out([*others, *videos], 3, 0)


def test_references_of_equal_ids_are_told_apart() -> None:
    groups = [[Sample("0", (Turn("human", "?"), Turn("gpt", text)), f"{text}.jsonl:1")] for text in ("a", "b")]
    validation = Validation.of(groups, lambda model, samples: [], lambda said, truth: {})
    assert validation.references == {"a.jsonl:1": ["a"], "b.jsonl:1": ["b"]}
    assert [sample.id for sample in validation.samples] == ["a.jsonl:1", "b.jsonl:1"]
