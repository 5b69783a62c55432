"""`eval_const.py` and the `control` command with a tiny model of random weights, end to end but for training."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

import eval_const
from internvl_chat.__main__ import main as command_line
from internvl_chat.boxes import load_boxes, save_boxes
from internvl_chat.contracts import UserError
from internvl_chat.data.prompts.tokenizer import load_tokenizer
from internvl_chat.data.prompts.wordings import wording_named
from internvl_chat.data.records.annotations import DatasetEntry
from internvl_chat.data.records.record_questions import question_sample
from internvl_chat.inference.requests import EncodedClip
from internvl_chat.inference.session import PredictionSession, newest_checkpoint
from internvl_chat.scoring.consensus import choose_by_consensus
from internvl_chat.tasks.intentvc import submission
from internvl_chat.tasks.intentvc.check_submission import validate_submission


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
    argv = flags(captioner_folder, meta, "--save_path", out, "--fallback_caption", "a thing moves")
    code = eval_const.run(eval_const.build_parser().parse_args(argv))
    written = {"progress", "answers.jsonl", "run.json", "result_public.json", "result_private.json", "result.zip"}
    assert {p.name for p in out.iterdir()} - {"failures.json"} == written
    expected: dict[submission.Split, list[str]] = {}
    captions: dict[str, str] = {}
    for split in submission.SPLITS:
        captions |= captions_in(out / f"result_{split}.json")
        expected[split] = submission.ids_of_split(own_entry.root, split)
    assert list(captions) == [*expected["public"], *expected["private"]]
    said = {ask: texts for ask, texts in candidates_kept(out).items()}
    silent = {i for i in captions if submission.submitted_caption(said[i]) is None}
    assert captions == {i: submission.submitted_caption(said[i]) or "a thing moves" for i in captions}
    assert code == bool(silent)
    assert set(json.loads((out / "failures.json").read_text()) if silent else ()) == silent
    assert validate_submission(out / "result.zip", expected) == []
    with zipfile.ZipFile(out / "result.zip") as archive:
        assert archive.namelist() == ["result_public.json", "result_private.json"]


def candidates_kept(out: Path) -> dict[str, list[str]]:
    lines = [line for path in (out / "progress").iterdir() for line in path.read_text().splitlines()]
    return {record["id"]: record["candidates"] for record in map(json.loads, lines)}


@pytest.fixture
def speaking(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Candidates by id; the model says what stands there."""
    said: dict[str, list[str]] = {}

    def captioners(*_: object) -> Callable[[Sequence[EncodedClip]], list[list[str]]]:
        return lambda clips: [said[i] for clip in clips for i in clip.ids]

    monkeypatch.setattr(PredictionSession, "load", captioners)
    return said


@pytest.mark.process
def test_what_says_nothing_is_no_submission_and_scores_as_nothing(
    captioner_folder: Path,
    meta: Path,
    own_entry: DatasetEntry,
    speaking: dict[str, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    public, private = (submission.ids_of_split(own_entry.root, split) for split in submission.SPLITS)
    references = {i: [f"the {i} moves to the left", "it moves"] for i in [*public, *private]}
    (tmp_path / "references.json").write_text(json.dumps(references))
    speaking |= {i: [texts[0]] for i, texts in references.items()} | {public[1]: [" \ufffd "]}
    argv = flags(captioner_folder, meta, "--save_path", tmp_path / "out", "--references", tmp_path / "references.json")
    assert eval_const.run(eval_const.build_parser().parse_args(argv)) == 1
    out, err = capsys.readouterr()
    assert f"error: {public[1]}: the model said no word" in err
    assert public[1] not in captions_in(tmp_path / "out" / "result_public.json")
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (scores["captions"], scores["references"]) == (6, 6)
    # A caption without a word counts as one that is wrong, in its own part alone; the mean of both is what counts.
    alone = {part: scores["parts"][part]["ROUGE-L"] for part in submission.SPLITS}
    assert (len(public), len(private)) == (4, 2)
    assert alone == {"public": pytest.approx(3 / 4), "private": pytest.approx(1)}
    assert scores["scores"]["ROUGE-L"] == pytest.approx((3 / 4 + 1) / 2)
    assert json.loads(out.splitlines()[-1])["ROUGE-L"] == (3 / 4 + 1) / 2

    # With a second candidate that says something there is a submission.
    speaking[public[1]] = ["...", "a thing\nmoves"]
    argv = flags(captioner_folder, meta, "--save_path", tmp_path / "out", "--num_beams", "2", "--num_candidates", "2")
    assert eval_const.run(eval_const.build_parser().parse_args([*argv, "--json"])) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"out": str(tmp_path / "out"), "captions": 6, "failures": {}, "scores": None}
    assert captions_in(tmp_path / "out" / "result_public.json")[public[1]] == "a thing moves"
    assert not (tmp_path / "out" / "failures.json").exists()


def test_consensus_where_little_is_said(
    captioner_folder: Path,
    meta: Path,
    own_entry: DatasetEntry,
    speaking: dict[str, list[str]],
    chosen: tuple[list[str], Path],
    tmp_path: Path,
) -> None:
    ids, named = chosen
    argv = flags(captioner_folder, meta, "--save_path", tmp_path / "out", "--ids", named, "--num_beams", "3")
    argv += ["--num_candidates", "3", "--consensus", "CIDEr"]
    for loud in (0, 1, 2):
        speaking |= {i: ["", "a dog", "a dog"] if n < loud else ["", " ", "!"] for n, i in enumerate(ids)}
        argv += ["--seed", str(loud)]
        assert eval_const.run(eval_const.build_parser().parse_args(argv)) == 0
        assert json.loads((tmp_path / "out" / "candidates.json").read_text()) == speaking
    assert list(captions_in(tmp_path / "out" / "result.json").values())[:3] == ["a dog", "a dog", ""]
    named.write_text(json.dumps(ids[:1]))
    with pytest.raises(UserError, match="take BLEU-4 for one"):
        eval_const.run(eval_const.build_parser().parse_args(argv))


def test_a_part_of_the_challenges_videos_is_told(
    captioner_folder: Path,
    meta: Path,
    own_entry: DatasetEntry,
    speaking: dict[str, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for split in submission.SPLITS:
        (own_entry.root / f"sample_result_{split}.json").unlink()
    video_id = next(own_entry.root.glob("*/*")).name
    category = video_id.split("-")[0]
    clip = own_entry.root / category / video_id
    shutil.copytree(clip, own_entry.root / "zebra" / "zebra-15")
    (own_entry.root / "zebra" / "zebra-15" / f"{video_id}.mp4").rename(
        own_entry.root / "zebra" / "zebra-15" / "zebra-15.mp4"
    )
    speaking |= dict.fromkeys(submission.ids_of_split(own_entry.root, "public"), ["a zebra"])
    argv = flags(captioner_folder, meta, "--save_path", tmp_path / "out", "--split", "public")
    assert eval_const.run(eval_const.build_parser().parse_args(argv)) == 1
    assert "209 of the challenge's 210 public videos are not in the dataset" in capsys.readouterr().err
    assert captions_in(tmp_path / "out" / "result_public.json")["zebra-15"] == "a zebra"


def predicted(argv: Sequence[str | Path], out: Path) -> dict[str, str]:
    assert eval_const.run(eval_const.build_parser().parse_args([*map(str, argv), "--save_path", str(out)])) == 0
    return captions_in(out / "result.json")


@pytest.fixture
def chosen(meta: Path, tmp_path: Path) -> tuple[list[str], Path]:
    """Some ids, and the file that names them."""
    ids = [p.name for p in sorted((meta.parent / "data").glob("*/*-[12]"))]
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    return ids, tmp_path / "ids.json"


def test_several_questions_of_ones_own_are_not_mixed_up(
    captioner_folder: Path, meta: Path, chosen: tuple[list[str], Path], tmp_path: Path
) -> None:
    annotation = meta.with_name("train.jsonl")
    records = [json.loads(line) for line in annotation.read_text().splitlines()]
    for number, record in enumerate(records):
        record["conversations"][0]["value"] = f"<video>\nDescribe object {number % 2}."
    annotation.write_text("".join(json.dumps(record) + "\n" for record in records))
    argv = [*flags(captioner_folder, meta, "--ids", chosen[1]), "--save_path", str(tmp_path / "out")]
    with pytest.raises(UserError, match="asks 2 different questions .*give --prompt_form"):
        eval_const.run(eval_const.build_parser().parse_args(argv))
    assert len(predicted([*argv, "--prompt_form", "text_only"], tmp_path / "out")) == len(chosen[0])


@pytest.mark.parametrize(
    "decoding", [["--num_beams", "2"], ["--temperature", "0.7", "--num_candidates", "3", "--top_p", "0.9"]]
)
def test_chosen_ids_are_captioned_alike_in_any_batch(
    decoding: list[str], captioner_folder: Path, meta: Path, chosen: tuple[list[str], Path], tmp_path: Path
) -> None:
    ids, named = chosen
    argv = [*flags(captioner_folder, meta, "--ids", named), *decoding]
    answers = [predicted([*argv, "--batch_tokens", tokens], tmp_path / tokens) for tokens in ("1", "1500", "65536")]
    assert answers[0] == answers[1] == answers[2]
    assert list(answers[0]) == ids and len(set(answers[0].values())) > 1
    files = {"progress", "answers.jsonl", "run.json", "result.json"}
    files |= {"candidates.json"} if "--num_candidates" in decoding else set()
    assert {p.name for p in (tmp_path / "1500").iterdir()} == files


def test_candidates_are_written_by_id_the_caption_first(
    captioner_folder: Path, meta: Path, chosen: tuple[list[str], Path], tmp_path: Path
) -> None:
    argv = flags(captioner_folder, meta, "--ids", chosen[1], "--num_beams", "2", "--temperature", "1")
    argv += ["--num_candidates", "5"]
    captions = predicted(argv, tmp_path / "both")
    candidates = json.loads((tmp_path / "both" / "candidates.json").read_text())
    assert {i: texts[0] for i, texts in candidates.items()} == captions
    agreed = {i: choice.caption for i, choice in choose_by_consensus(candidates, "BLEU-4").items()}
    assert predicted([*argv, "--consensus", "BLEU-4"], tmp_path / "both") == agreed != captions
    beams = [str(f) for f in flags(captioner_folder, meta, "--ids", chosen[1], "--num_beams", "2")]
    predicted([*beams, "--num_candidates", "2"], tmp_path / "beams")
    best = json.loads((tmp_path / "beams" / "candidates.json").read_text())
    assert {i: texts[:2] for i, texts in candidates.items()} == best
    assert all(len(texts) == 5 and len(set(texts[2:])) > 1 for texts in candidates.values())


def test_one_clip_asked_in_two_prompt_forms_by_two_members(
    captioner_folder: Path, meta: Path, chosen: tuple[list[str], Path], tmp_path: Path
) -> None:
    """Each member of an ensemble has its own prompt and its own number of frames."""
    shared = flags(captioner_folder, meta, "--ids", chosen[1])[2:]
    pair = ["--ensemble", captioner_folder, captioner_folder, *shared, "--prompt_form", "text_only", "coordinates"]
    mixed = predicted([*pair, "--num_frames", "2", "4", "--weights", "1", "1e-9"], tmp_path / "mixed")
    alone = predicted(
        ["--checkpoint_path", captioner_folder, *shared, "--prompt_form", "text_only", "--num_frames", "2"],
        tmp_path / "alone",
    )
    other = predicted([*pair, "--num_frames", "2", "4", "--weights", "1e-9", "1"], tmp_path / "other")
    assert mixed == alone != other


@pytest.mark.parametrize("fallback", [None, "a thing moves"])
def test_videos_that_cannot_be_read_are_named_and_the_others_captioned(
    fallback: str | None,
    captioner_folder: Path,
    meta: Path,
    own_entry: DatasetEntry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    missing, torn, short = (
        submission.ids_of_split(own_entry.root, "private")[:1] + (submission.ids_of_split(own_entry.root, "public")[:2])
    )
    samples = {i: question_sample(own_entry, i, str) for i in (missing, torn, short)}
    samples[missing].video_path.unlink()
    content = samples[torn].video_path.read_bytes()
    middle = content.index(b"mdat") + 200
    samples[torn].video_path.write_bytes(content[:middle] + bytes(len(content) - middle - 900) + content[-900:])
    save_boxes(samples[short].tracks[0].path, load_boxes(samples[short].tracks[0].path)[:-1])
    argv = flags(captioner_folder, meta, "--save_path", tmp_path / "out")
    argv += ["--fallback_caption", fallback] if fallback else []
    assert eval_const.run(eval_const.build_parser().parse_args(argv)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    failures = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert {missing, short} <= set(failures) and len(errors) == len(failures)
    assert all(f"error: {i}: {reason}" in errors for i, reason in failures.items())
    captions = {i: c for s in submission.SPLITS for i, c in captions_in(tmp_path / "out" / f"result_{s}.json").items()}
    assert {i: captions.get(i) for i in failures} == dict.fromkeys(failures, fallback)
    assert len(set(captions) - set(failures)) == 6 - len(failures)


def test_where_no_video_can_be_read_the_dataset_is_at_fault(
    captioner_folder: Path, meta: Path, own_entry: DatasetEntry, tmp_path: Path
) -> None:
    for path in own_entry.root.glob("*/*/*.mp4"):
        path.unlink()
    with pytest.raises(UserError, match="none of 6 videos .*not found"):
        eval_const.run(
            eval_const.build_parser().parse_args(flags(captioner_folder, meta, "--save_path", tmp_path / "out"))
        )


def test_control_measures_and_draws(
    captioner_folder: Path, shapes_meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = flags(captioner_folder, shapes_meta, "--sheet", tmp_path / "sheet.png", "--out", tmp_path / "control.json")
    assert command_line(["control", *argv, "--sheet_clips", "2", "--probes", "swap", "null", "absent"]) == 0
    *table, last = capsys.readouterr().out.splitlines()[1:]
    rates = json.loads(last)
    written = json.loads((tmp_path / "control.json").read_text())
    assert rates == {key: written[key] for key in rates}
    assert rates["clips"] == 6
    assert [(p["probe"], p["level"], p["clips"]) for p in written["points"]] == [
        ("own", 0.0, 6),
        ("swap", 1.0, 6),
        ("null", 1.0, 6),
        *[("absent", level, 6) for level in (0.25, 0.5, 0.75)],
    ]
    assert len(table) == 7
    captions = written["captions"]
    assert captions["own 0"] != captions["swap 1"] != captions["null 1"]
    assert Image.open(tmp_path / "sheet.png").height > 300
    # What is kept beside --out is not asked again.
    assert command_line(["control", *argv, "--probes", "swap", "null", "absent", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == rates


def test_the_box_reaches_the_model_and_not_only_the_text(
    captioner_folder: Path, shapes_meta: Path, tmp_path: Path
) -> None:
    """Asked without coordinates, the random model still answers another box with another caption."""
    argv = flags(captioner_folder, shapes_meta, "--out", tmp_path / "control.json", "--prompt_form", "text_only")
    assert command_line(["control", *argv, "--max_new_tokens", "12"]) == 0
    captions = json.loads((tmp_path / "control.json").read_text())["captions"]
    assert any(captions["own 0"][i] != captions["swap 1"][i] for i in captions["own 0"])


def test_a_question_has_its_video_name_and_boxes(shapes_entry: DatasetEntry) -> None:
    sample = question_sample(shapes_entry, "square-1", wording_named("coordinates").asks)
    assert sample.video_path.is_file() and len(load_boxes(sample.tracks[0].path)) == 24
    assert [t.text for t in sample.turns] == [
        "<video>\nDescribe this video in one sentence, and focus on square located in the coordinate list."
    ]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (["--work_dirs", "no-such-work-dirs"], "no checkpoint found under no-such-work-dirs.*--model"),
        (["--checkpoint_path", "no-such-checkpoint"], "no-such-checkpoint: is no folder"),
        (["--checkpoint_path", "shell"], "shell: holds no prompt_config.json"),
        (["--ensemble", "shell", "--checkpoint_path", "shell"], "--ensemble and --model"),
        (["--checkpoint_path", "shell", "--weights", "1"], "--weights: belong to --ensemble"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_told(what: list[str], said: str, shapes_meta: Path) -> None:
    with pytest.raises(UserError, match=said):
        eval_const.run(eval_const.build_parser().parse_args([*what, "--meta_path", str(shapes_meta)]))


@pytest.mark.parametrize(
    ("flags_given", "said"),
    [
        (["--num_frames", "2", "3", "4"], "--num_frames has 3 values for 2 checkpoints"),
        (["--prompt_form", *["text_only"] * 3], "--prompt_form has 3 values for 2 checkpoints"),
        (["--weights", "1"], "--weights 1: expected 2 positive"),
        (["--weights", "1", "-1"], "--weights 1 -1: expected 2 positive"),
        (["--num_frames", "2"], "other: has another vocabulary"),
        (["--consensus", "CIDEr"], "--consensus chooses among candidates: give --num_candidates"),
    ],
)
def test_members_that_do_not_go_together_are_told(
    flags_given: list[str], said: str, captioner_folder: Path, meta: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(captioner_folder, tmp_path / "other"))
    tokenizer = load_tokenizer(other)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(other)
    argv = ["--ensemble", captioner_folder, other, "--meta_path", meta, *flags_given]
    with pytest.raises(UserError, match=said):
        eval_const.run(eval_const.build_parser().parse_args([str(arg) for arg in argv]))


def test_files_of_an_earlier_run_are_named(
    captioner_folder: Path,
    meta: Path,
    chosen: tuple[list[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    argv = [*flags(captioner_folder, meta), "--ids", chosen[1]]
    predicted([*argv, "--num_beams", "2", "--num_candidates", "2"], out)
    assert "earlier run" not in capsys.readouterr().err
    predicted(argv, out)
    assert f"warning: {out} holds files of an earlier run: candidates.json" in capsys.readouterr().err


def test_the_newest_checkpoint_of_any_run_is_taken(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for age, name in ((20, "run-b/checkpoint-100"), (10, "run-a/checkpoint-9"), (30, "run-c")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "trained_modules.safetensors").touch()
        mark = tmp_path / name / "trainer_state.json"
        mark.write_text("{}")
        os.utime(mark, (1000 - age, 1000 - age))
    half_written = tmp_path / "run-d" / "checkpoint-3"
    half_written.mkdir(parents=True)
    (half_written / "trained_modules.safetensors").touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "run-a" / "checkpoint-9"
