"""`python -m internvl_chat select-records`: a set whose records were counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from transformers import PreTrainedTokenizerFast

from internvl_chat.__main__ import main
from internvl_chat.commands.select_records import MODELS
from internvl_chat.contracts import UserError
from internvl_chat.data.checking.selection import BOUNDS
from internvl_chat.data.records.annotations import DatasetEntry, load_meta, read_mix, read_samples
from tests.helpers import ROOT


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, count in (("two", 2), ("five", 5), ("six", 6), ("none", 0)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("RGB", (4, 3)).save(tmp_path / name / f"{number}.png")
    return tmp_path


def record(number: int, video: str | None, *texts: str) -> dict:
    turns = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    return {"id": number, **({"video": video} if video else {}), "conversations": turns}


def test_the_numbers_are_those_of_a_hand_counted_example(
    root: Path, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer.save_pretrained(root / "model")
    # One token a byte: "<video>\nWhat is it?" and "a" are 21 with the line break between them; a frame counts 10.
    ask = "<video>\nWhat is it?"
    records = [
        record(0, "two", ask, "a"),
        record(1, "two", ask, "a" * 10),
        record(2, "two", ask, "a" * 11),
        record(3, "five", ask, "a"),
        record(4, "six", ask, "a"),
        record(5, "gone", ask, "a"),
        record(6, "none", ask, "a"),
        record(7, "two", "What is it?", "a", ask, "b"),
        record(8, "two", ask, "a", "<video>\nAnd?", "b"),
        record(9, "two", "<video>\nWhat is it, my friend?", "a"),
        record(10, None, "What is it?", "a"),
    ]
    source, out = root / "a.jsonl", root / "kept.jsonl"
    source.write_text("\n".join(map(json.dumps, records)))
    bounds = ["--max_frames", "5", "--tokens_per_frame", "10", "--max_tokens", "50", "--max_question_words", "5"]
    argv = ["select-records", str(source), "--tokenizer", str(root / "model"), "--out", str(out)]
    assert main([*argv, *bounds]) == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == [records[0], records[1]]
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 2 of 11 records",
        "left out: 3 without its folder of frames",
        "left out: 2 with more than 50 tokens",
        "left out: 2 without exactly one <video>, in the first turn",
        "left out: 1 with more than 5 frames",
        "left out: 1 with a question of 5 words or more",
    ]
    assert main([*argv, "--max_tokens", "3"]) == 1
    assert "no record of 11 is left" in capsys.readouterr().err


def test_bounds_are_the_published_ones() -> None:
    assert set(BOUNDS) == set(MODELS)
    sizes = {name: (b.max_frames, b.tokens_per_frame, b.max_tokens) for name, b in BOUNDS.items()}
    assert sizes == {"minicpm-v": (90, 96, 8192), "idefics3": (65, 169, 10240)}


def test_an_entry_draws_the_same_records_in_every_run(tmp_path: Path) -> None:
    lines = [json.dumps(record(number, None, "What?", str(number))) for number in range(50)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))

    def ids(name: str, draw: int | None) -> list[int]:
        return [
            int(sample.id) for sample in read_samples(DatasetEntry(name, tmp_path, tmp_path / "a.jsonl", draw=draw))
        ]

    drawn = ids("video", 7)
    assert drawn == [3, 4, 5, 10, 12, 14, 19] == ids("video", 7)
    assert drawn != ids("texts", 7) and len(set(ids("texts", 7))) == 7 and ids("texts", 50) == ids("texts", None)
    with pytest.raises(UserError, match=r"holds 50 records, 'draw' of 'texts' is 51"):
        ids("texts", 51)


def test_the_committed_mix_is_two_to_one(tmp_path: Path) -> None:
    meta = json.loads((ROOT / "shell/data/t2vid_mix_30k.json").read_text())
    for name, fields in meta.items():
        (tmp_path / name).write_text("\n".join(json.dumps(record(n, None, "Why?", "so")) for n in range(60)))
        fields |= {"root": str(tmp_path), "annotation": str(tmp_path / name), "draw": fields["draw"] // 500}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    entries = load_meta(tmp_path / "meta.json")
    assert [(e.name, e.draw, e.every_frame) for e in entries] == [
        ("video_chatgpt", 20, False),
        ("sharegemini", 20, False),
        ("longalpaca", 10, True),
        ("longqlora", 10, True),
    ]
    assert len(read_mix(entries)) == 60
