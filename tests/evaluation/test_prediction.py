"""`eval_const.py` and the `control` command with a tiny model of random weights, end to end but for training."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from transformers import PreTrainedTokenizerFast

import eval_const
from internvl_chat.__main__ import main as command_line
from internvl_chat.boxes import load_boxes
from internvl_chat.contracts import UserError
from internvl_chat.data.annotations import DatasetEntry
from internvl_chat.data.encoder import PromptConfig, SampleEncoder
from internvl_chat.data.prompt import PromptForm
from internvl_chat.evaluation import submission
from internvl_chat.evaluation.predict import (
    GenerationSettings,
    generate_captions,
    newest_checkpoint,
    question_sample,
    with_boxes_of,
)
from internvl_chat.model.checkpoint import load_captioner


def flags(captioner_folder: Path, meta: Path, *more: str | Path) -> list[str]:
    given = ["--checkpoint_path", captioner_folder, "--meta_path", meta, *more]
    return [str(f) for f in [*given, "--num_frames", "3", "--max_new_tokens", "5", "--num_workers", "0"]]


def captions_in(path: Path) -> dict[str, str]:
    return json.loads(path.read_text(encoding="utf-8"))["captions"]


@pytest.fixture
def meta(own_entry: DatasetEntry) -> Path:
    """A dataset without known references: nothing to score."""
    (own_entry.root / "references_test.json").unlink()
    return own_entry.annotation.with_name("meta.json")


def test_both_splits_are_captioned_and_packed(
    captioner_folder: Path, meta: Path, own_entry: DatasetEntry, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    eval_const.run(eval_const.parse_arguments(flags(captioner_folder, meta, "--save_path", out)))
    assert {p.name for p in out.iterdir()} == {"result_public.json", "result_private.json", "result.zip"}
    for split in submission.SPLITS:
        captions = captions_in(out / f"result_{split}.json")
        assert list(captions) == submission.ids_of_split(own_entry.root, split)
        assert all(isinstance(text, str) for text in captions.values())
    with zipfile.ZipFile(out / "result.zip") as archive:
        assert archive.namelist() == ["result_public.json", "result_private.json"]


def test_chosen_ids_are_captioned_alike_in_any_batch(captioner_folder: Path, meta: Path, tmp_path: Path) -> None:
    ids = [p.name for p in sorted((meta.parent / "data").glob("*/*-[12]"))]
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    answers = []
    for batch_size in ("1", "3"):
        out = tmp_path / batch_size
        argv = flags(captioner_folder, meta, "--save_path", out, "--ids", tmp_path / "ids.json")
        eval_const.run(eval_const.parse_arguments([*argv, "--batch_size", batch_size, "--num_beams", "2"]))
        assert [p.name for p in out.iterdir()] == ["result.json"]
        answers.append(captions_in(out / "result.json"))
    assert answers[0] == answers[1]
    assert list(answers[0]) == ids and len(set(answers[0].values())) > 1


def test_a_missing_test_video_is_told_before_any_caption(
    captioner_folder: Path, meta: Path, own_entry: DatasetEntry, tmp_path: Path
) -> None:
    video_id = submission.ids_of_split(own_entry.root, "private")[1]
    path = own_entry.root / video_id.split("-")[0] / video_id / f"{video_id}.mp4"
    path.unlink()
    with pytest.raises(UserError, match=f"1 of 6 .*{path}"):
        eval_const.run(eval_const.parse_arguments(flags(captioner_folder, meta, "--save_path", tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_control_measures_and_draws(
    captioner_folder: Path, shapes_meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = flags(captioner_folder, shapes_meta, "--sheet", tmp_path / "sheet.png", "--out", tmp_path / "control.json")
    assert command_line(["control", *argv, "--sheet_clips", "2", "--batch_size", "4"]) == 0
    rates = json.loads(capsys.readouterr().out.splitlines()[-1])
    written = json.loads((tmp_path / "control.json").read_text())
    assert rates == {k: v for k, v in written.items() if k not in ("right", "swapped")}
    assert rates["clips"] == len(written["right"]) == len(written["swapped"]) == 6
    assert written["right"] != written["swapped"]
    assert Image.open(tmp_path / "sheet.png").height > 300


def test_the_box_reaches_the_model_and_not_only_the_text(
    captioner_folder: Path, shapes_entry: DatasetEntry, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Asked without coordinates, the random model still answers another box with another caption."""
    model = load_captioner(captioner_folder).float()
    encoder = SampleEncoder(tokenizer, PromptConfig.load(captioner_folder))
    ids = submission.ids_of_split(shapes_entry.root, "public")
    a, b = (question_sample(shapes_entry, video_id, PromptForm.TEXT_ONLY.question) for video_id in ids[:2])
    settings = GenerationSettings(num_frames=4, max_new_tokens=12, num_workers=0)
    own, swapped = generate_captions(model, tokenizer, encoder, [a, with_boxes_of(a, b)], settings)
    assert own != swapped


def test_a_question_has_its_video_name_and_boxes(shapes_entry: DatasetEntry) -> None:
    sample = question_sample(shapes_entry, "square-1", PromptForm.COORDINATES.question)
    assert sample.video_path.is_file() and len(load_boxes(sample.tracks[0].path)) == 24
    assert [t.text for t in sample.turns] == [
        "<video>\nDescribe this video in one sentence, and focus on square located in the coordinate list."
    ]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (["--work_dirs", "no-such-work-dirs"], "no checkpoint found under no-such-work-dirs.*--checkpoint_path"),
        (["--checkpoint_path", "no-such-checkpoint"], "no-such-checkpoint: is no folder"),
        (["--checkpoint_path", "shell"], "shell: holds no prompt_config.json"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_told(what: list[str], said: str, shapes_meta: Path) -> None:
    with pytest.raises(UserError, match=said):
        eval_const.run(eval_const.parse_arguments([*what, "--meta_path", str(shapes_meta)]))


def test_the_newest_checkpoint_of_any_run_is_taken(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for age, name in ((20, "run-b/checkpoint-100"), (10, "run-a/checkpoint-9"), (30, "run-c")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "trained_modules.safetensors").touch()
        mark = tmp_path / name / "trainer_state.json"
        mark.touch()
        os.utime(mark, (1000 - age, 1000 - age))
    half_written = tmp_path / "run-d" / "checkpoint-3"
    half_written.mkdir(parents=True)
    (half_written / "trained_modules.safetensors").touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "run-a" / "checkpoint-9"
