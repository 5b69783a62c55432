"""Meta JSON and JSONL annotations, and building them from the challenge's captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from internvl_chat.__main__ import main as command_line
from internvl_chat.choices import PROMPT_FORMS
from internvl_chat.contracts import UserError
from internvl_chat.data.records.annotations import (
    DatasetEntry,
    caption_records,
    load_meta,
    load_roots,
    object_name_of,
    read_captions,
    read_samples,
)
from internvl_chat.files import write_jsonl
from tests.helpers import shared

CAPTIONS = {"pool-3": ["a ball rolls", "a ball stops"], "dog-12": ["a dog runs"]}


def entry_of(folder: Path, records: Any = None, **fields: Any) -> DatasetEntry:
    write_jsonl(
        folder / "lines.jsonl", caption_records(CAPTIONS, PROMPT_FORMS["coordinates"]) if records is None else records
    )
    return DatasetEntry("set", folder, folder / "lines.jsonl", **fields)


def meta_at(folder: Path, **fields: Any) -> Path:
    (folder / "meta.json").write_text(json.dumps({"set": fields}))
    return folder / "meta.json"


def test_a_record_is_the_challenges_to_the_byte() -> None:
    assert next(caption_records({"airplane-1": ["small airplane"]}, PROMPT_FORMS["coordinates"])) == {
        "id": "airplane-1-0",
        "video": "airplane-1/airplane-1.mp4",
        "conversations": [
            {
                "from": "human",
                "value": "<video>\nDescribe this video in one sentence, and focus on airplane located in the "
                "coordinate list.",
            },
            {"from": "gpt", "value": "small airplane"},
        ],
    }


@pytest.mark.parametrize(
    ("category", "name"),
    [
        ("electricfan", "electric fan"),
        ("racing", "racing car"),
        ("rubicCube", "rubik's cube"),
        ("pool", "pool ball"),
        ("gametarget", "game character"),
        ("licenseplate", "licenseplate"),
    ],
)
def test_categories_are_called_by_their_display_names(category: str, name: str) -> None:
    assert object_name_of(category) == name


def test_a_dataset_can_name_its_own_categories() -> None:
    assert object_name_of("pool", {"pool": "cue ball"}) == "cue ball"


def test_the_challenges_captions_give_one_line_each(tmp_path: Path) -> None:
    captions = shared("data/intentvc/train.json")
    assert command_line(["annotate", "--captions", str(captions), "--out", str(tmp_path / "lines.jsonl")]) == 0
    records = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(records) == 4900
    assert [r["id"] for r in records[:6]] == [f"airplane-1-{k}" for k in range(5)] + [records[5]["id"]]
    assert len({r["id"] for r in records}) == 4900
    questions = {r["video"].split("-")[0]: r["conversations"][0]["value"] for r in records}
    assert len(questions) == 70
    for category, question in questions.items():
        name = object_name_of(category)
        assert question == (
            f"<video>\nDescribe this video in one sentence, and focus on {name} located in the coordinate list."
        )
    assert "focus on rubik's cube located" in questions["rubicCube"]


def test_a_line_becomes_a_sample_with_its_paths(tmp_path: Path) -> None:
    first, _, last = read_samples(entry_of(tmp_path))
    assert first.id == "pool-3-0"
    assert first.video_path == tmp_path / "pool" / "pool-3" / "pool-3.mp4"
    assert first.tracks[0].path == tmp_path / "pool" / "pool-3" / "object_bboxes.npy"
    assert first.object_name == "pool ball"
    assert [turn.speaker for turn in first.turns] == ["human", "gpt"]
    assert last.source == f"{tmp_path / 'lines.jsonl'}:3"


@pytest.mark.parametrize(
    ("repeat_time", "ids"),
    [
        (2, ["pool-3-0", "pool-3-1", "dog-12-0"] * 2),
        (0.67, ["pool-3-0", "pool-3-1"]),
        (1.34, ["pool-3-0", "pool-3-1", "dog-12-0", "pool-3-0"]),
    ],
)
def test_repeat_time_repeats_or_cuts_the_lines(repeat_time: float, ids: list[str], tmp_path: Path) -> None:
    assert [s.id for s in read_samples(entry_of(tmp_path, repeat_time=repeat_time))] == ids


@pytest.mark.parametrize(
    "line",
    [
        "{not json",
        "[1, 2]",
        '{"id": "a-1-0", "video": "a-1/a-1.mp4"}',
        '{"id": "a-1-0", "conversations": []}',
        '{"id": "a-1-0", "video": null, "conversations": []}',
        '{"id": "a-1-0", "video": "a-1/a-1.mp4", "conversations": ["hello"]}',
        '{"id": "a-1-0", "video": "a-1/a-1.mp4", "conversations": [{"from": "human"}]}',
    ],
)
def test_a_broken_line_is_named_by_file_and_number(line: str, tmp_path: Path) -> None:
    entry = entry_of(tmp_path)
    entry.annotation.write_text("\n" + line + "\n")
    with pytest.raises(UserError, match=rf"{entry.annotation}:2: "):
        read_samples(entry)


def test_an_annotation_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    entry = entry_of(tmp_path)
    entry.annotation.write_bytes(b"\xff\xfe{}\n")
    with pytest.raises(UserError, match=str(entry.annotation)):
        read_samples(entry)


def test_an_annotation_without_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lines.jsonl"):
        read_samples(entry_of(tmp_path, records=[]))


def test_annotation_is_found_beside_the_meta_json(tmp_path: Path) -> None:
    entry_of(tmp_path)
    (entry,) = load_meta(meta_at(tmp_path, root=str(tmp_path), annotation="lines.jsonl", object_names={"dog": "hound"}))
    assert {s.object_name for s in read_samples(entry)} == {"pool ball", "hound"}


def test_what_lies_beside_the_meta_json_comes_before_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        (folder / "boxes").mkdir(parents=True)
        entry_of(folder)
    meta = meta_at(there, root=".", annotation="lines.jsonl", boxes_root="boxes")
    monkeypatch.chdir(here)
    for path in (meta, Path("../there/meta.json")):
        (entry,) = load_meta(path)
        assert (entry.root.resolve(), entry.annotation.resolve()) == (there, there / "lines.jsonl")
        assert entry.boxes_root is not None and entry.boxes_root.resolve() == there / "boxes"
    (there / "lines.jsonl").unlink()
    assert load_meta(meta)[0].annotation == Path("lines.jsonl")


def test_the_repositorys_meta_json_has_the_documented_form(tmp_path: Path) -> None:
    from tests.helpers import ROOT

    fields = json.loads((ROOT / "shell/data/intentvc_caption.json").read_text())["intent_data"]
    assert load_roots(meta_at(tmp_path, **{**fields, "root": str(tmp_path)})) == [tmp_path]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"annotation": "lines.jsonl"}, "root"),
        ({"root": "."}, "annotation"),
        ({"root": "/no/such/folder", "annotation": "lines.jsonl"}, "/no/such/folder"),
        ({"root": ".", "annotation": "missing.jsonl"}, "missing.jsonl.*annotate"),
        ({"root": ".", "annotation": "lines.jsonl", "repeat_times": 2}, "repeat_times"),
        ({"root": None, "annotation": "lines.jsonl"}, "root"),
        ({"root": ".", "annotation": "lines.jsonl", "repeat_time": "twice"}, "repeat_time"),
        ({"root": ".", "annotation": "lines.jsonl", "repeat_time": -1}, "repeat_time"),
        ({"root": ".", "annotation": "lines.jsonl", "object_names": ["pool"]}, "object_names"),
    ],
)
def test_a_meta_json_that_cannot_be_used_says_why(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    entry_of(tmp_path)
    with pytest.raises(UserError, match=f"meta.json.*{said}"):
        load_meta(meta_at(tmp_path, **fields))


def test_a_meta_json_that_does_not_parse_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text('{\n"set": oops}\n')
    with pytest.raises(UserError, match=r"meta.json:2: "):
        load_meta(tmp_path / "meta.json")


@pytest.mark.parametrize(
    "content", [{}, {"captions": []}, {"captions": {"a-1": []}}, {"captions": {"a-1": "text"}}, []]
)
def test_captions_in_another_form_are_refused(content: object, tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="captions.json"):
        read_captions(tmp_path / "captions.json")
