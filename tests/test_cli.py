"""The command line: what each command does, and how it fails."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval_const
from internvl_chat.__main__ import COMMANDS, build_parser, main
from internvl_chat.choices import PROMPT_FORMS
from internvl_chat.command_line import as_declared
from internvl_chat.commands.next_steps import NEXT
from internvl_chat.data.prompts.wordings import wording_named
from internvl_chat.data.records.annotations import DatasetEntry, read_captions
from tests.helpers import ROOT, run_python

pytestmark = pytest.mark.process


def test_help_lists_every_command_with_a_line() -> None:
    text = run_python("-m", "internvl_chat", "--help").stdout
    for command in COMMANDS:
        assert re.search(rf"^ +{command}\s+\w+", text, re.MULTILINE), command


def test_control_c_is_one_line_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("internvl_chat.commands.rank.run", stopped)
    assert main(["rank", "a.json"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_a_reader_that_has_seen_enough_ends_a_command_without_a_word() -> None:
    """As `| head` does; what is broken elsewhere is told as ever."""
    argv = [sys.executable, "-m", "internvl_chat", "train", "--list"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 141)


def test_another_broken_pipe_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(args: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("internvl_chat.commands.rank.run", broken)
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(BrokenPipeError):
            main(["rank", "a.json"])


def test_a_users_error_is_one_line_and_exit_code_one(tmp_path: Path) -> None:
    argv = ["annotate", "--captions", tmp_path / "none.json", "--out", tmp_path / "lines.jsonl"]
    result = run_python("-m", "internvl_chat", *argv)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"error: {tmp_path / 'none.json'}: not found\n"
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_that_is_not_utf8_gets_escapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    (tmp_path / "\u72d7.json").write_text("{}")
    assert main(["check", str(tmp_path / "\u72d7.json")]) == 1
    terminal.flush()
    assert rb"\u72d7.json" in terminal.buffer.getvalue()  # type: ignore[attr-defined]


def test_shapes_writes_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["shapes", "--out", str(tmp_path / "set"), "--train_clips", "2", "--public_clips", "1"]
    assert main([*argv, "--private_clips", "0"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'set'}: 4 train, 2 public, 0 private ids\n"
    assert len(list((tmp_path / "set").glob("*/*/*.mp4"))) == 6
    assert main(argv) == 1
    assert "not empty" in capsys.readouterr().err


def test_every_command_ends_with_what_now(
    shapes_meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On stderr, so that what is printed can be parsed; of several ranks the first one says it."""
    runs_until_stopped = {"serve", "web"}
    assert set(NEXT) == set(COMMANDS) - runs_until_stopped
    drawn, not_drawn = (NEXT["control"](argparse.Namespace(out=None, sheet=sheet)) for sheet in ("a.png", None))
    assert ("--sheet" in drawn, "--sheet" in not_drawn) == (False, True)
    captions = shapes_meta.parent / "data" / "references_test.json"
    candidates = tmp_path / "a file.json"
    candidates.write_text(json.dumps({i: [*texts, texts[0]] for i, texts in read_captions(captions).items()}))
    argv = ["consensus", "--candidates", str(candidates), "--out", str(tmp_path / "my choice.json")]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    chosen = f"'{tmp_path}/my choice.json'"
    assert err == f"next: python -m internvl_chat score --predictions {chosen} --references REFERENCES\n"
    assert "next" not in out
    words = shlex.split(err.removeprefix("next: python -m internvl_chat "), comments=True)
    assert main([*words[:-1], str(captions), "--no_java", "--resamples", "2"]) == 0
    assert capsys.readouterr().err.startswith(f"next: python -m internvl_chat report {chosen} --references ")
    monkeypatch.setenv("RANK", "1")
    assert main(argv) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("form", PROMPT_FORMS)
def test_annotate_asks_the_question_of_its_form(form: str, shapes_entry: DatasetEntry, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "lines.jsonl"
    argv = ["annotate", "--captions", shapes_entry.root / "train.json", "--out", out, "--prompt_form", form]
    assert main([*map(str, argv), "--object_name", "square=blue box", "--object_name", "circle=ball"]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    names = {"square": "blue box", "circle": "ball"}
    assert len(records) == 30
    for record in records:
        category = record["id"].split("-")[0]
        question = wording_named(form).asks(names.get(category, category))
        assert record["conversations"][0]["value"] == f"<video>\n{question}"


@pytest.mark.parametrize("flag", [["--meta_out", "meta.json"], ["--root", "."], ["--object_name", "square"]])
def test_annotate_refuses_half_of_a_setting(
    flag: list[str], shapes_entry: DatasetEntry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["annotate", "--captions", shapes_entry.root / "train.json", "--out", tmp_path / "lines.jsonl", *flag]
    assert main([str(arg) for arg in argv]) == 1
    assert flag[0] in capsys.readouterr().err
    assert not (tmp_path / "lines.jsonl").exists()


def test_picture_draws_any_line(shapes_meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = []
    for line in ("1", "30"):
        out = tmp_path / "new" / f"{line}.png"
        assert (
            main(["picture", "--meta_path", str(shapes_meta), "--line", line, "--out", str(out), "--num_frames", "2"])
            == 0
        )
        pictures.append(np.asarray(Image.open(out)))
    first, last = capsys.readouterr().out.splitlines()
    assert first.endswith("frames [5, 17]") and "-0, " in first and "-4, " in last
    assert pictures[0].shape != pictures[1].shape or not np.array_equal(*pictures)


def test_picture_draws_images_and_refuses_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, size in (("a.png", (40, 20)), ("b.png", (20, 40))):
        Image.new("RGB", size).save(tmp_path / name)
    turns = [{"from": "human", "value": "<image> or <image>?"}, {"from": "gpt", "value": "the first"}]
    records = [{"id": 1, "image": ["a.png", "b.png"], "conversations": turns}, {"id": 2, "conversations": turns}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "meta.json").write_text(json.dumps({"set": {"root": str(tmp_path), "annotation": "a.jsonl"}}))
    argv = ["picture", "--meta_path", str(tmp_path / "meta.json"), "--out", str(tmp_path / "out.png"), "--line"]
    assert main([*argv, "1"]) == 0
    assert capsys.readouterr().out.endswith("1, frames [0, 1]\n")
    assert main([*argv, "2"]) == 1
    assert "a.jsonl:2: sample '2' is text alone" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["0", "31", "-1"])
def test_picture_refuses_a_line_that_is_not_there(
    line: str, shapes_meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["picture", "--meta_path", shapes_meta, "--line", line, "--out", tmp_path / "x.png"]
    assert main([str(arg) for arg in argv]) == 1
    assert re.search(rf"--line {line}: .* 30 records", capsys.readouterr().err)
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("frames", ["0", "-2"])
def test_picture_refuses_an_impossible_number_of_frames(
    frames: str, shapes_meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["picture", "--meta_path", shapes_meta, "--num_frames", frames, "--out", tmp_path / "x.png"]
    try:
        code: object = main([str(arg) for arg in argv])
    except SystemExit as error:
        code = error.code
    assert code in (1, 2)
    assert "frames" in capsys.readouterr().err


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Every command's, and those of the two scripts."""
    (subparsers,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {**subparsers.choices, "eval_const": eval_const.build_parser()}


def test_a_thing_has_one_word_in_all_commands_and_its_old_words_go_on_working() -> None:
    words = {"--checkpoint_path": "--model", "--meta_path": "--meta", "--save_path": "--out"}
    seen = set()
    for name, parser in parsers().items():
        assert not parser.allow_abbrev, name
        for action in parser._actions:
            old = {word for word in (*words, "--model_name_or_path") if word in action.option_strings}
            seen |= old
            for word in old:
                assert action.option_strings[0] in {words.get(word), "--base", "--model"} - {None}, (name, word)
            assert not any("-" in word[2:] for word in action.option_strings if len(word) > 2), name
    assert seen == {*words, "--model_name_or_path"}


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("--num-frames", "--num_frames"),
        ("--meta-path=a-b.json", "--meta_path=a-b.json"),
        ("a-b.json", "a-b.json"),
        ("--learning-rate 5e-5", "--learning-rate 5e-5"),
        ("-1", "-1"),
        ("--", "--"),
    ],
)
def test_dashes_and_underscores_are_one_in_a_flag_alone(word: str, read: str) -> None:
    assert as_declared(["--from", word]) == ["--from", read]


def test_what_stands_behind_two_dashes_is_no_flag() -> None:
    assert as_declared(["--num-frames", "--", "--num-frames"]) == ["--num_frames", "--", "--num-frames"]


def test_a_flag_that_is_cut_short_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["picture", "--num-frame", "3"])
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: python -m internvl_chat picture [flags]; ")
    assert error == "error: --num_frame: is not known here: did you mean --num_frames?"


def test_results_are_objects_too(shapes_meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a command prints is JSON with --json; the two without the flag run until they are ended."""

    def told(*argv: object) -> dict[str, object]:
        assert main([*map(str, argv), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    root = shapes_meta.parent / "data"
    lines = tmp_path / "lines.jsonl"
    assert told("annotate", "--captions", root / "train.json", "--out", lines) == {"out": str(lines), "captions": 30}
    assert told("npy", "--root", root, "--workers", 1) == {"written": 0, "skipped": 12, "failed": 0}
    picture = tmp_path / "a.png"
    frames = told("picture", "--meta", shapes_meta, "--out", picture, "--num_frames", 2)["frames"]
    assert frames == [5, 17]
    assert str(told("train", "--list")["tiny"]).startswith("The tiny InternVL")
    without = {name for name, parser in parsers().items() if "--json" not in parser._option_string_actions}
    assert without == {"web", "serve"}
