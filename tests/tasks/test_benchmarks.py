"""Tasks: what they ask, that every answer is scored, and the commands from a checkpoint to a table."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from internvl_chat.__main__ import main
from internvl_chat.choices import TASKS
from internvl_chat.commands.options import rounded
from internvl_chat.contracts import TrackFile, UserError
from internvl_chat.data.records.annotations import DatasetEntry, read_captions
from internvl_chat.data.synthetic.flowchart import FlowchartStyle
from internvl_chat.data.synthetic.flowchart_dataset import write_flowcharts
from internvl_chat.files import read_json, write_json, write_jsonl
from internvl_chat.scoring.captions.caption_scores import NO_JAVA_SUFFIX, score_captions
from internvl_chat.tasks.benchmark import read_answers, task_named
from internvl_chat.tasks.control.pairs import pairs_of
from internvl_chat.tasks.intentvc import questions
from internvl_chat.tasks.intentvc.questions import read_caption_set


@pytest.fixture(scope="module")
def own_records(shapes_entry: DatasetEntry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of two objects each, in records without any layout, three captions an object."""
    pairs = read_json(shapes_entry.root / "other_target.json")
    clips = [sorted(pairs)[0], next(i for i in sorted(pairs) if i not in (sorted(pairs)[0], pairs[sorted(pairs)[0]]))]
    lines = []
    for clip in clips:
        for number, object_id in enumerate((clip, pairs[clip])):
            for caption in range(3):
                category = clip.split("-")[0]
                boxes = np.load(shapes_entry.root / object_id.split("-")[0] / object_id / "object_bboxes.npy")
                lines.append(
                    {
                        "id": f"{clip} {number}" if not caption else f"{clip} {number} again {caption}",
                        "video": f"{category}/{clip}/{clip}.mp4",
                        "tracks": [
                            {"name": f"toy {number}", "boxes": boxes.tolist(), "unit": "thousandths", "order": "xyxy"}
                        ],
                        "conversations": [
                            {"from": "human", "value": f"<video>\nWhat does toy {number} do?"},
                            {"from": "gpt", "value": f"toy {number} of {clip} moves, {caption}"},
                        ],
                    }
                )
    folder = tmp_path_factory.mktemp("own")
    write_jsonl(folder / "records.jsonl", lines)
    meta = {"root": str(shapes_entry.root), "annotation": str(folder / "records.jsonl")}
    write_json(folder / "meta.json", {"own": meta})
    return folder / "meta.json"


def test_scores_are_shown_to_six_places() -> None:
    content = {"scores": {"BLEU-1": 0.99999999996, "CIDEr": None}, "rows": [1 / 3, 2], "name": "a"}
    assert rounded(content) == {"scores": {"BLEU-1": 1.0, "CIDEr": None}, "rows": [0.333333, 2], "name": "a"}


def test_every_task_says_what_it_is() -> None:
    assert set(TASKS) >= {"intentvc", "boxes", "control"}
    assert all((task_named(name).__doc__ or "").count(".") >= 1 for name in TASKS)
    with pytest.raises(UserError, match="nothing: is no task, expected one of"):
        task_named("nothing")


def test_the_challenge_asks_each_test_video_once(shapes_root: Path) -> None:
    asked = read_caption_set(shapes_root)
    assert [len(ids) for ids in asked.parts.values()] == [4, 2]
    assert [sample.id for sample in asked.samples] == [i for ids in asked.parts.values() for i in ids]
    assert all(sample.turns[-1].speaker == "human" and len(sample.tracks) == 1 for sample in asked.samples)


def test_records_ask_each_question_once_whatever_its_captions(own_records: Path) -> None:
    asked = read_caption_set(own_records)
    assert len(asked.samples) == 4
    assert {len(texts) for texts in asked.references.values()} == {3}
    assert all("What does toy" in sample.turns[-1].text for sample in asked.samples)


def test_records_without_answers_are_questions(own_records: Path, tmp_path: Path) -> None:
    records = [json.loads(line) for line in own_records.with_name("records.jsonl").read_text().splitlines()][:1]
    records[0]["conversations"].pop()
    write_jsonl(tmp_path / "asked.jsonl", records)
    asked = read_caption_set(tmp_path / "asked.jsonl")
    assert len(asked.samples) == 1 and asked.references == {}


def test_the_right_caption_is_the_better_one(shapes_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without Java, whose start takes longer than all the rest.
    monkeypatch.setattr(questions, "score_captions", partial(score_captions, java=False))
    benchmark = task_named("intentvc").read(shapes_root)
    truth = read_captions(shapes_root / "references_test.json")
    right = {sample.id: [truth[sample.id][0]] for sample in benchmark.samples}
    ids = list(right)
    turned = {i: right[other] for i, other in zip(ids, [*ids[1:], ids[0]], strict=True)}
    scores = [benchmark.score(answers).values for answers in (right, turned)]
    bleu, cider = (f"{metric}{NO_JAVA_SUFFIX}" for metric in ("BLEU-1", "CIDEr"))
    assert scores[0][bleu] == pytest.approx(1.0) and scores[1][bleu] < 0.9  # type: ignore[operator]
    assert scores[0][cider] > 2 * scores[1][cider]  # type: ignore[operator]


def test_records_of_one_clip_are_each_others_other_object(own_records: Path) -> None:
    samples = read_caption_set(own_records).samples
    first, second, third, fourth = (sample.id for sample in samples)
    assert pairs_of(samples) == {first: second, second: first, third: fourth, fourth: third}
    assert pairs_of(samples[:1]) == {}


def test_control_exchanges_nothing_but_the_box(own_records: Path) -> None:
    benchmark = task_named("control").read(own_records)
    by_id = {sample.id: sample for sample in benchmark.samples}
    own = read_caption_set(own_records).samples
    assert len(by_id) == 12
    for sample in own:
        (other,) = (o for o in own if o.video_path == sample.video_path and o.id != sample.id)
        swapped, nowhere = by_id[f"{sample.id} swap 1"], by_id[f"{sample.id} null 1"]
        assert swapped.tracks == (replace(other.tracks[0], name=sample.object_name),)
        assert not isinstance(nowhere.tracks[0], TrackFile) and not nowhere.tracks[0].corners.any()
        assert swapped.turns == nowhere.turns == sample.turns


def test_captions_that_follow_the_box_are_told_from_those_that_do_not(own_records: Path) -> None:
    benchmark = task_named("control").read(own_records)
    asked = read_caption_set(own_records)
    pairs = pairs_of(asked.samples)
    following = {i: [asked.references[i][0]] for i in pairs} | {f"{i} null 1": ["a toy"] for i in pairs}
    following |= {f"{i} swap 1": [asked.references[other][1]] for i, other in pairs.items()}
    deaf = {name: [asked.references[name.split(" null")[0].split(" swap")[0]][0]] for name in following}
    assert benchmark.score(following).values["swapped_box"] == 1.0
    assert benchmark.score(deaf).values == {**benchmark.score(following).values, "swapped_box": 0.0}


def test_boxes_are_scored_answer_by_answer(tmp_path: Path) -> None:
    write_flowcharts(tmp_path / "set", FlowchartStyle(image_size_px=90, grid=(2,)), images=5, val_fraction=0.4, seed=2)
    benchmark = task_named("boxes").read(tmp_path / "set")
    lines = [json.loads(line) for line in (tmp_path / "set" / "val.jsonl").read_text().splitlines()]
    right = {f"{line['id']} (1)": [line["conversations"][1]["value"]] for line in lines}
    assert [sample.id for sample in benchmark.samples] == list(right)
    assert benchmark.score(right).values["AP50"] == pytest.approx(1.0)
    one = dict(list(right.items())[:1])
    assert benchmark.score(one).values["AP50"] < 1  # type: ignore[operator]
    # What could not be read is told of each score by itself.
    missing = {row.name: (row.count, row.unread) for row in benchmark.score({}).rows}
    count = len(right)
    assert missing["AP50"] == (count, count)
    garbled = {name: ["<box>[[1"] for name in list(right)[:1]}
    assert {row.unread for row in benchmark.score({**right, **garbled}).rows} == {1}
    with pytest.raises(UserError, match=r"val\.jsonl"):
        task_named("boxes").read(tmp_path)


def test_replies_that_cannot_be_read_are_told_by_kind_of_question(tmp_path: Path) -> None:
    def record(name: str, asked: str, answer: str) -> dict[str, Any]:
        turns = [{"from": "human", "value": f"<image>\n{asked}"}, {"from": "gpt", "value": answer}]
        return {"id": name, "image": "a.png", "conversations": turns}

    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    refers = "Please provide the bounding box coordinate of the region this sentence describes: <ref>a cup</ref>"
    box = "<ref>a cup</ref><box>[[1, 2, 30, 40]]</box>"
    lines = [record(f"d{n}", "Please detect and label all objects in the image.", box) for n in range(2)]
    lines += [record(f"r{n}", refers, box) for n in range(3)]
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    benchmark = task_named("boxes").read(tmp_path)
    detected = {sample.id: [box] for sample in benchmark.samples if sample.id.startswith("d")}
    unread = {row.name: (row.count, row.unread) for row in benchmark.score(detected).rows}
    assert unread["AP50"] == (2, 0) and unread["P@1"] == (3, 3)


def test_from_a_checkpoint_to_a_table_and_again_from_the_answers(
    captioner_folder: Path, own_records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    argv = ["evaluate", "control", "--model", captioner_folder, "--data", own_records, "--out", out]
    argv += ["--num_frames", 3, "--max_new_tokens", 5, "--num_workers", 0]
    assert main(list(map(str, argv))) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    held = read_json(out / "scores.json")
    assert held["scores"] == printed and held["answered"] == held["questions"] == 12
    assert held["num_frames"] == 3 and held["decoding"]["max_new_tokens"] == 5
    assert held["coverage"] == 1 and held["published"] == []
    changed = next(row for row in held["rows"] if row["name"] == "null: captions changed")
    assert changed["count"] == 4 and changed["interval"]["low"] <= changed["value"] <= changed["interval"]["high"]
    page = (out / "report.html").read_text()
    assert "12 of 12 questions are answered (100%)" in page and page.count("<article") == 12
    assert "3 frames" in page and "Beside what was published" not in page
    again = ["score", "control", "--data", own_records, "--predictions", out / "answers.jsonl"]
    assert main(list(map(str, again))) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == printed
    answers = read_answers(
        out / "answers.jsonl", [line["id"] for line in map(json.loads, (out / "answers.jsonl").open())]
    )
    assert len(answers) == 12
    # Everything is on disk: the same command asks nothing again.
    (out / "scores.json").unlink()
    (out / "answers.jsonl").unlink()
    assert main(list(map(str, argv))) == 0
    assert read_json(out / "scores.json")["scores"] == printed


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["score", "intentvc", "--predictions", "p.json"], "needs --data"),
        (["score", "--predictions", "p.json"], "needs --references"),
        (["evaluate", "intentvc", "--model", "m", "--data", "nowhere", "--out", "o"], "nowhere: not found"),
    ],
)
def test_what_lacks_is_said(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": "a", "answer": 3}', "expected JSONL with {'id'"),
        ('{"id": "a", "answer": "x"}\n{"id": "a", "answer": "y"}', "comes twice"),
        ('{"id": "z", "answer": "x"}', "answers none of the 1 questions, such as 'a'"),
    ],
)
def test_answers_that_cannot_be_used_are_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        read_answers(tmp_path / "answers.jsonl", ["a"])
