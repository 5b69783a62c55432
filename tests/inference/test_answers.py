"""Answers to a file of records: in the form, and under the ids, that the scorer reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from internvl_chat.__main__ import main
from internvl_chat.files import write_jsonl
from internvl_chat.grounding import box_text
from internvl_chat.inference.chat import Chat
from internvl_chat.scoring.predictions import read_facts, read_predictions


def record(number: int, *exchanges: tuple[str, str], **fields: Any) -> dict[str, Any]:
    turns = [
        {"from": speaker, "value": text}
        for question, answer in exchanges
        for speaker, text in (("human", question), ("gpt", answer))
    ]
    return {"id": number, **fields, "conversations": turns}


@pytest.fixture
def records(tmp_path: Path) -> Path:
    box = f"<ref>a</ref>{box_text([(1, 2, 300, 400)])}"
    noise = np.random.default_rng(2).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    lines = [
        record(7, ("Where?", box), image="a.png"),
        record(8, ("Where is <ref>a</ref>?", box), ("And <ref>b</ref>?", box), image="a.png"),
        record(9, ("Text alone?", "Yes.")),
        {"id": "asked", "conversations": [{"from": "human", "value": "Text alone?"}]},
    ]
    write_jsonl(tmp_path / "val.jsonl", lines)
    return tmp_path / "val.jsonl"


def test_every_question_is_answered_alike_in_any_batch(
    captioner_folder: Path, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = []
    for batch_tokens in (1, 65536):
        out = records.with_name(f"{batch_tokens}.jsonl")
        argv = ["answer", "--model", captioner_folder, "--records", records, "--out", out, "--num_workers", 0]
        argv += ["--batch_tokens", batch_tokens, "--max_new_tokens", 5]
        assert main([str(word) for word in argv]) == 0
        assert capsys.readouterr().out == f"{out}: 4 records, 5 answers\n"
        written.append([json.loads(line) for line in out.read_text().splitlines()])
    assert written[0] == written[1]
    assert [line.keys() - {"id"} for line in written[0]] == [{"answer"}, {"answers"}, {"answer"}, {"answer"}]
    assert written[0][2]["answer"] == written[0][3]["answer"]
    first = written[0][0]["answer"]
    assert read_predictions(out)["7"] == first and read_facts(out)["decoding"]["max_new_tokens"] == 5
    assert main(["score-boxes", "--predictions", str(out), "--references", str(records)]) == 0
    said = capsys.readouterr().out
    assert "Precision@1" in said

    chat = Chat.open(captioner_folder, max_new_tokens=5)
    assert chat.ask("Where?", images=[records.with_name("a.png")]).text == written[0][0]["answer"]
    chat.reset()
    assert chat.ask("Text alone?").text == written[0][2]["answer"]


def test_an_id_that_comes_twice_is_told(
    captioner_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "twice.jsonl", [record(1, ("a?", "b")), record(2, ("a?", "b")), record(1, ("c?", "d"))])
    argv = ["answer", "--model", str(captioner_folder), "--records", str(tmp_path / "twice.jsonl"), "--out"]
    assert main([*argv, str(tmp_path / "x.jsonl")]) == 1
    assert "twice.jsonl:3: id '1' was already used in" in capsys.readouterr().err
    assert not (tmp_path / "x.jsonl").exists()
    assert main([*argv, str(tmp_path / "x.jsonl"), "--limit", "2", "--max_new_tokens", "2"]) == 0
