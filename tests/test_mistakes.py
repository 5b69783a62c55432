"""What is typed wrong, and what is answered: each message says what, where, what was expected, and what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import eval_const
import generate_npy_bboxes
from internvl_chat.__main__ import main
from internvl_chat.contracts import UserError
from internvl_chat.data.records.annotations import DatasetEntry, load_meta, read_samples
from internvl_chat.data.records.intentvc import boxes_path_of
from internvl_chat.train.build import check_answers
from internvl_chat.train.start_checks import check_start, known_flags
from tests.helpers import ROOT

SCRIPT = ROOT / "shell/internvl3.0/2nd_finetune/roiattention_ml.sh"


@pytest.fixture(scope="module")
def place(captioner_folder: Path, shapes_entry: DatasetEntry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a model, a video, a picture and some files of data, good and bad."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "runs").mkdir()
    (folder / "runs" / "train").symlink_to(captioner_folder)
    (folder / "clips").symlink_to(shapes_entry.root)
    video = next(video for video in sorted(shapes_entry.root.glob("*/*/*.mp4")))
    shutil.copy(video, folder / "a.mp4")
    shutil.copy(boxes_path_of(video), folder / "track.npy")
    Image.new("RGB", (320, 160)).save(folder / "a.png")
    turns = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
    record = {"id": "a", "video": "a.mp4", "conversations": turns}
    (folder / "good.jsonl").write_text(json.dumps(record) + "\n")
    (folder / "absolute.jsonl").write_text(json.dumps({**record, "video": str(folder / "a.mp4")}) + "\n")
    entry = {"root": ".", "annotation": "good.jsonl"}
    for name, fields in {
        "good": entry,
        "absolute": {**entry, "annotation": "absolute.jsonl"},
        "moved": {**entry, "root": "/data/elsewhere"},
        "slip": {**entry, "annotation": "slip.jsonl"},
        "silent": {**entry, "annotation": "silent.jsonl"},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps({"data": fields}))
    (folder / "ids.txt").write_text("a\n")
    tracks = [
        {"name": name, "boxes": {"0": [9, 9, 90, 90]}, "unit": "pixels", "order": "xyxy"} for name in ("cup", "pan")
    ]
    (folder / "two.json").write_text(json.dumps(tracks))
    (folder / "comma.json").write_text('{"data": {"root": ".",}}')
    for name, captions in {
        "captions": {"dog-1": "a string"},
        "empty": {"dog-1": [" "]},
        "ids": {"cup1": ["A cup."]},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps({"captions": captions}))
    slip = {"id": "a", "vidoe": "a.mp4", "conversations": turns}
    (folder / "slip.jsonl").write_text(json.dumps(slip) + "\n")
    silent = {**record, "conversations": [turns[0], {"from": "gpt", "value": ""}]}
    (folder / "silent.jsonl").write_text(json.dumps(silent) + "\n")
    (folder / "no_config").mkdir()
    return folder


CHAT = "chat --model runs/train --max_new_tokens 2 --num_frames 2 --question What?"
# What is typed behind `python -m internvl_chat`, the exit code, and what the last line of the answer holds.
COMMANDS = [
    ("chek good.json", 2, "error: chek: is no command: did you mean check?"),
    ("validate_submision a.zip", 2, "did you mean validate-submission?"),
    ("nothing_of_the_kind", 2, "--help lists them"),
    ("score_boxes", 2, "--predictions, --references"),
    ("picture --meta-pth good.json", 2, "--meta_pth: is not known here: did you mean --meta_path?"),
    ("picture --meta-path good.json --line 99", 1, "--line 99: the annotations have 1 records"),
    ("picture --meta good.json --num_frames 0", 2, "0: expected 1 or more"),
    ("picture --meta good.json --out clips", 2, "clips: is a folder, expected a file to write"),
    ("eval --model base --meta good.json --out good.json", 2, "good.json: is a file, expected a folder to write to"),
    ("picture", 2, "--meta META.json: say which data is meant"),
    ("picture --meta moved.json", 1, "'root' of 'data' is no folder: /data/elsewhere; edit it to where the videos lie"),
    ("picture --meta comma.json", 1, "is not valid JSON"),
    (
        "picture --meta good.jsonl",
        1,
        "good.jsonl: is no meta JSON but may be a file of records: expected",
    ),
    ("score --metas good.json --predictions a", 2, "error: --metas: is not known here: "),
    ("control --model runs/train --meta good.json --ids good.jsonl", 1, "good.jsonl: expected a JSON list of ids"),
    ("control --model runs/train --meta good.json --ids ids.txt", 1, "ids.txt: expected a JSON list of ids"),
    ("shapes --out /sys/n/set", 1, "error: /sys/n: "),
    ("picture --meta slip.json", 1, "slip.jsonl:1: the record has the key 'vidoe': expected 'video'"),
    ("picture --meta absolute.json", 1, "expected a path relative to the root: 'a.mp4'"),
    (
        f"{CHAT} --video a.mp4 --tracks two.json --object fork",
        1,
        "two.json: holds no object 'fork': expected 'cup', 'pan'",
    ),
    (
        "chat --model runs/train --video a.mp4 --tracks two.json --prompt_form coordinates",
        1,
        "two.json: holds 2 objects, 'cup', 'pan': say with --object which one is asked about",
    ),
    (f"{CHAT} --video a.png", 1, "a.png: is a picture, expected a video or a folder of frames: give it as --image"),
    (f"{CHAT} --image a.mp4", 1, "a.mp4: is a video, expected a picture: give it as --video"),
    (f"{CHAT} --video good.json", 1, "good.json: is not a readable video"),
    (f"{CHAT} --video nowhere.mp4", 1, "nowhere.mp4: not found"),
    (f"{CHAT} --video a.mp4 --box 100,40,60,40", 1, "if it is x,y,w,h, give 100,40,160,80"),
    (f"{CHAT} --video a.mp4 --box 1,2,3", 2, "1,2,3: expected four numbers x1,y1,x2,y2"),
    (f"{CHAT} --video a.mp4 --box 0.1,0.2,0.3,0.4", 1, "it is in fractions, expected thousandths"),
    (f"{CHAT} --video a.mp4 --box 1000,40,1200,800", 1, "out of range: expected thousandths, 0 to 1000"),
    (
        f"{CHAT} --video a.mp4 --box 400,40,500,80 --box_unit pixels",
        1,
        "400,40,500,80 lies outside the picture: a.mp4",
    ),
    (f"{CHAT} --video a.mp4 --box -900,40,100,80", 1, "the box -900,40,100,80 is out of range"),
    (f"{CHAT} --video a.mp4 --tracks good.json", 1, "'tracks' is None: expected a list of tracks"),
    ("chat --model runs/train --video a.mp4 --prompt_form coordinates", 1, "give --box x1,y1,x2,y2 or --tracks FILE"),
    ("chat --model runs --video a.mp4 --question What?", 1, "runs: is no checkpoint: .*; did you mean runs/train?"),
    ("chat --model no_config --question What?", 1, "no_config: is no checkpoint: it holds no config.json"),
    ("chat --model nope --question What?", 1, "nope: is neither a checkpoint folder nor a model of the hub"),
    ("chat --model AN/ID --question What?", 1, "AN/ID: is no folder here, and the hub cannot be asked for it"),
    ("annotate --captions captions.json --out o.jsonl", 1, "'dog-1': expected a list of captions, got 'a string'"),
    ("annotate --captions empty.json --out o.jsonl", 1, "'dog-1': a caption is empty: write it, or leave it out"),
    ("annotate --captions ids.json --out o.jsonl", 1, "'cup1': expected CATEGORY-NUMBER, as in dog-1, .*convert-data"),
    ("annotate --captions nope.json --out o.jsonl", 1, "nope.json: not found"),
    ("convert-data nope --from lasot --out o.jsonl", 1, "nope: not found"),
    ("convert-data good.json --from lasot --out o.jsonl", 1, "good.json: is no folder; give the dataset's folder"),
    ("check nope.json", 1, "next: mend what is named and check again"),
    ("track a.mp4 --box 0.1,0.2,0.3,0.4 --out t.txt", 1, "it is in fractions, expected pixels"),
    ("track a.mp4 --box 100,80,180,130 --out t.txt", 1, "expected x,y,w,h; if it is x1,y1,x2,y2, give 100,80,80,50"),
    ("track a.mp4 --box 1,2,0,4 --out t.txt", 2, "expected x,y,w,h in pixels with a width and height above 0"),
]


@pytest.mark.parametrize(("typed", "code", "said"), COMMANDS, ids=[typed for typed, *_ in COMMANDS])
def test_what_is_typed_wrong_is_answered_in_the_last_line(
    typed: str, code: int, said: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    try:
        ended: object = main(typed.split())
    except SystemExit as end:
        ended = end.code
    printed = capsys.readouterr()
    *_, last = (printed.err or printed.out).splitlines()
    assert ended == code
    assert all(part in last for part in said.split(".*")), last
    assert len(printed.err.splitlines()) <= 2
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ("slip.json", "the record has the key 'vidoe'; expected 'video'"),
        ("silent.json", "turn 2 is empty; expected an answer to learn"),
    ],
)
def test_check_tells_a_fault_by_its_cause_and_once(
    meta: str, said: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert main(["check", meta, "--workers", "1"]) == 1
    told = capsys.readouterr().out
    assert said in told and "1 error, 0 warnings" in told


def test_training_refuses_an_empty_answer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    silent, good = (read_samples(load_meta(Path(f"{name}.json"))[0]) for name in ("silent", "good"))
    with pytest.raises(UserError, match="silent.jsonl:1: sample 'a' has an empty answer: expected text to learn"):
        check_answers([*good, *silent])
    with pytest.raises(UserError, match="and so have 1 others"):
        check_answers([*silent, *good, *silent])
    with pytest.raises(UserError, match="good.jsonl:1: sample 'a' ends with a question: expected a 'gpt' turn"):
        check_answers([*good, replace(good[0], turns=good[0].turns[:1])])


@pytest.mark.process
@pytest.mark.parametrize("typed", ["-m internvl_chat check good.json", f"{ROOT / 'eval_const.py'} --meta good.json"])
def test_without_the_environment_it_is_named(typed: str, place: Path) -> None:
    """A Python that has none of the packages, as before the environment is activated."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-S", *typed.split()]
    done = subprocess.run(argv, cwd=place, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert "is not installed for " in said and "activate the environment" in said


@pytest.mark.parametrize(
    ("script", "typed", "code", "said"),
    [
        (eval_const, "--mode CKPT", 2, "--mode: is not known here: did you mean --model?"),
        (
            eval_const,
            "--meta good.json --work_dirs none",
            1,
            "no checkpoint found under none: train one, or give --model",
        ),
        (eval_const, "", 2, "--meta META.json: say which data is meant"),
        (eval_const, "--meta good.json --num_candidates 0", 2, "0: expected 1 or more"),
        (generate_npy_bboxes, "--meta moved.json", 1, "'root' of 'data' is no folder: /data/elsewhere"),
        (generate_npy_bboxes, "--root good.json", 1, "good.json: is no folder; give the dataset's root as --root"),
        (generate_npy_bboxes, "--roots good.json", 2, "did you mean --root?"),
    ],
)
def test_the_two_scripts_answer_alike(
    script: object,
    typed: str,
    code: int,
    said: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["script.py", *typed.split()])
    try:
        ended: object = script.main()  # type: ignore[attr-defined]
    except SystemExit as end:
        # What is raised with a text is printed, and ends with 1.
        ended = end.code if isinstance(end.code, int) else sys.stderr.write(f"{end.code}\n") and 1
    *_, last = capsys.readouterr().err.splitlines()
    assert (ended, said in last) == (code, True), last


def test_a_checkpoint_that_nobody_named_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("internvl_chat.inference.session.newest_checkpoint", lambda _: place / "runs" / "train")
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["eval_const.py", "--meta", "good.json", "--ids", "nowhere.json"])
    with pytest.raises(SystemExit):
        sys.exit(eval_const.main())
    assert f"asking {place}/runs/train, the newest checkpoint under work_dirs: --model asks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "box_is_told"), [("What is seen?", False), ("Describe it, located in the coordinate list.", True)]
)
def test_a_box_that_nothing_uses_is_said_to_be_unused(
    words: str,
    box_is_told: bool,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    base = str(ROOT / "quickstart" / "base")
    argv = ["chat", "--model", base, "--video", "a.mp4", "--box", "100,100,300,300", "--max_new_tokens", "1"]
    assert main([*argv, "--num_frames", "1", "--question", words]) == 0
    assert ("the box changes nothing in this answer" in caplog.text) is not box_is_told
    # The number of a box says nothing of its unit.
    note = "note: --box is read in thousandths of the picture's sides: "
    assert note in capsys.readouterr().err
    assert main([*argv, "--num_frames", "1", "--question", words, "--box_unit", "thousandths"]) == 0
    assert note not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--learing_rate 3", "unknown flag --learing_rate: did you mean --learning_rate?"),
        ("--learning-rate fast", "--learning_rate is 'fast': expected a number"),
        ("--max_steps 1.5", "--max_steps is '1.5': expected a whole number"),
        ("--conv_style llava", "unknown --conv_style 'llava': expected one of internvl2_5, "),
        ("--meta nope.json", "nope.json: not found"),
        ("--model_name_or_path nope", "nope: is neither a checkpoint folder nor a model of the hub"),
        ("--model clips", "clips: is no checkpoint: it holds no config.json"),
        ("--deepspeed nope.json", "nope.json: not found"),
        ("--output_dir good.json", "--output_dir good.json: is a file and cannot be written to: give another folder"),
        ("", None),
        ("--freeze_llm --no_dataloader_pin_memory --deepspeed {}", None),
    ],
)
def test_settings_are_checked_before_anything_starts(
    flags: str, said: str | None, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    words = f"--model_name_or_path OpenGVLab/InternVL3-8B --meta_path good.json --output_dir out {flags}".split()
    if said is None:
        check_start(words)
        return
    with pytest.raises(UserError) as refused:
        check_start(words)
    assert said in str(refused.value)


def test_the_flags_that_are_read_off_the_source_are_those_of_the_script() -> None:
    from dataclasses import fields

    from internvl_chat.train.arguments import RunArguments

    own = {field.name for kind in RunArguments.kinds() for field in fields(kind) if field.init}
    assert known_flags().keys() - own == {"model", "meta"}
    assert own <= known_flags().keys()


@pytest.mark.process
@pytest.mark.parametrize(
    ("flags", "settings", "code", "said"),
    [
        ("", "BATCH_SIZE=abc", 2, "error: BATCH_SIZE is 'abc': expected a whole number from 1"),
        ("", "BATCH_SIZE=1 GPUS=2", 2, "BATCH_SIZE 1 is no multiple of PER_DEVICE_BATCH_SIZE 1 x GPUS 2 x NNODES 1"),
        ("", "PATH=/usr/bin:/bin", 1, "error: torchrun is not found: activate the environment"),
        ("--learing_rate 3", "", 1, "error: unknown flag --learing_rate: did you mean --learning_rate?"),
        (
            "",
            "OUTPUT_DIR=/proc/nowhere",
            1,
            "error: OUTPUT_DIR /proc/nowhere cannot be written to: give another folder",
        ),
    ],
)
def test_a_training_that_cannot_start_starts_nothing(
    flags: str, settings: str, code: int, said: str, place: Path, tmp_path: Path
) -> None:
    given = dict(word.split("=", 1) for word in settings.split())
    where = {"MODEL_PATH": "OpenGVLab/InternVL3-8B", "META_PATH": str(place / "good.json"), "OUTPUT_DIR": "out"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, **where, **given}
    done = subprocess.run(
        ["bash", SCRIPT, *flags.split()], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_help_of_a_script_starts_nothing_and_writes_nothing(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "python $*"\n')
    python.chmod(0o755)
    place = tmp_path / "empty"
    place.mkdir()
    env = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["sh", SCRIPT, "--help"], cwd=place, env=env, capture_output=True, text=True, check=True)
    assert "MODEL_PATH, META_PATH, OUTPUT_DIR, GPUS" in done.stdout
    assert done.stdout.splitlines()[-1] == f"python {ROOT / 'internvl_chat/train/finetune_w_bboxes_ml.py'} --help"
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ("frame,x,y,w,h", ":1: expected four finite numbers 'x,y,w,h', got 'frame,x,y,w,h'"),
        ("1,2,30,40", "the file has 1 lines, expected one a frame"),
        ("110,80,150,120\n" * 24, "as x1,y1,x2,y2 all are inside"),
    ],
)
def test_box_texts_that_are_none_are_told(
    boxes: str,
    said: str,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "dog" / "dog-1"
    folder.mkdir(parents=True)
    shutil.copy(place / "a.mp4", folder / "dog-1.mp4")
    (folder / "object_bboxes.txt").write_text(boxes)
    monkeypatch.setattr(sys, "argv", ["generate_npy_bboxes.py", "--root", str(tmp_path), "--workers", "1"])
    assert generate_npy_bboxes.main() == 1
    assert said in capsys.readouterr().err
    assert not (folder / "object_bboxes.npy").exists()
