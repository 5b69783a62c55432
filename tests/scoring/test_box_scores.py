"""Scores of boxes: against pycocotools itself, by hand, and through the command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from internvl_chat.__main__ import main
from internvl_chat.contracts import UserError
from internvl_chat.files import write_jsonl
from internvl_chat.grounding import DETECTION_QUESTION, LabelledBox, box_text, detection_answer
from internvl_chat.inference.answers import answer_records, questions_of, records_to_answer
from internvl_chat.scoring.box_records import read_answered
from internvl_chat.scoring.box_scores import GroundingReport, score_boxes

WIDTH, HEIGHT = 640, 427
CLASSES = ("cat", "dog", "traffic light")


def score(references: list[dict[str, Any]], predictions: list[dict[str, Any]], folder: Path) -> GroundingReport:
    write_jsonl(folder / "references.jsonl", references)
    write_jsonl(folder / "predictions.jsonl", predictions)
    return score_boxes(read_answered(folder / "references.jsonl", folder / "predictions.jsonl"))


def detection_record(number: int, items: list[LabelledBox]) -> dict[str, Any]:
    question = {"from": "human", "value": f"<image>\n{DETECTION_QUESTION}"}
    return {
        "id": number,
        "image": f"{number}.png",
        "width": WIDTH,
        "height": HEIGHT,
        "conversations": [question, {"from": "gpt", "value": detection_answer(items)}],
    }


# The guide's example: three phrases in one conversation, one box each.
PHRASES = {
    "the lady with the blue shirt": (243, 469, 558, 746),
    "woman in gray shirt facing camera on right": (507, 409, 698, 740),
    "a woman in glasses shops in an open air fruit market": (196, 422, 395, 708),
}
ASK = "Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>"


def guide_record() -> dict[str, Any]:
    turns = []
    for phrase, box in PHRASES.items():
        prefix = "" if turns else "<image>\n"
        turns.append({"from": "human", "value": prefix + ASK.format(phrase)})
        turns.append({"from": "gpt", "value": f"<ref>{phrase}</ref>{box_text([box])}"})
    return {"id": 2324, "image": "a.jpg", "width": 427, "height": 640, "conversations": turns}


def answers_of(record: dict[str, Any]) -> list[str]:
    return [turn["value"] for turn in record["conversations"] if turn["from"] == "gpt"]


def test_precision_at_one_on_the_guides_three_boxes(tmp_path: Path) -> None:
    record = guide_record()
    report = score([record], [record], tmp_path)
    assert report.referring is not None and report.detection is None
    assert (report.referring.answers, report.referring.correct, report.referring.precision_at_1) == (3, 3, 1.0)

    # Half of the height: IoU 0.5 exactly is right; a little less is not.
    halved = "<ref>x</ref><box>[[507, 409, 698, 574.5]]</box>"
    below = "<ref>x</ref><box>[[507, 409, 698, 574]]</box>"
    first, _, last = answers_of(record)
    for text, correct in ((halved, 3), (below, 2), ("no idea", 2), ("", 2), ("<box>[[507, 409, 698", 2)):
        report = score([record], [{"id": 2324, "answers": [first, text, last]}], tmp_path)
        assert report.referring is not None
        assert (report.referring.answers, report.referring.correct) == (3, correct), text
        assert report.malformed == (text not in (halved, below))


def test_only_the_first_readable_box_counts_for_precision_at_one(tmp_path: Path) -> None:
    record = guide_record()
    right = answers_of(record)
    wrong = "<ref>x</ref><box>[[0, 0, 9, 9]]</box>"
    unread = "<ref>x</ref><box>[[9, 9, 0, 0]]</box>"
    answers = [wrong + right[0], right[1] + wrong, unread + right[2]]
    report = score([record], [{"id": 2324, "answers": answers}], tmp_path)
    assert report.referring is not None and report.referring.correct == 2
    assert report.faults == {"no_area": 1}


def test_answers_that_were_not_given_stay_in_the_denominator(tmp_path: Path) -> None:
    record = guide_record()
    others = [{**guide_record(), "id": number} for number in (1, 2)]
    given = [{"id": 2324, "answers": answers_of(record)[:2]}, {"id": "1", "answers": []}, {"id": "9", "answer": ""}]
    report = score([record, *others], given, tmp_path)
    assert report.referring is not None
    assert (report.answers, report.referring.answers, report.referring.correct) == (9, 9, 2)
    assert report.faults == {"missing_prediction": 7}
    assert report.without_box == 7
    assert report.predictions_without_reference == 1


def test_refcoco_records_are_matched_by_line(tmp_path: Path) -> None:
    references = [
        {"image": "a.jpg", "sent": "left man", "bbox": [64, 42.7, 320, 213.5], "width": WIDTH, "height": HEIGHT},
        {"image": "a.jpg", "sent": "right man", "bbox": [320, 0, 640, 427], "width": WIDTH, "height": HEIGHT},
    ]
    predictions = [{"answer": "<ref>left man</ref><box>[[100, 100, 500, 500]]</box>"}, {"answer": "[[0, 0, 499, 999]]"}]
    report = score(references, predictions, tmp_path)
    assert report.referring is not None and report.referring.correct == 1
    assert report.faults == {"untagged_box": 1}


def test_an_answer_to_a_converted_phrase_is_held_against_refcoco_itself(tmp_path: Path) -> None:
    records = [
        {"image": "a.png", "sent": "left man", "bbox": [64, 42.7, 320, 213.5], "width": WIDTH, "height": HEIGHT},
        {"image": "a.png", "sent": "right man", "bbox": [320, 0, 640, 427], "width": WIDTH, "height": HEIGHT},
    ]
    write_jsonl(tmp_path / "refcoco.jsonl", records)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    converted = tmp_path / "converted.jsonl"
    argv = ["convert-data", "--from", "refcoco", str(tmp_path / "refcoco.jsonl"), "--out", str(converted)]
    assert main(argv) == 0
    samples = records_to_answer(converted, tmp_path)
    told = dict(zip([sample.id for sample in samples], ("[[100, 100, 500, 500]]", "[[0, 0, 500, 1000]]"), strict=True))
    answers = {ask.id: f"<ref>man</ref><box>{told[s.id]}</box>" for s in samples for ask in questions_of(s)}
    write_jsonl(tmp_path / "predictions.jsonl", answer_records(samples, answers))
    for references in ("refcoco.jsonl", "converted.jsonl"):
        report = score_boxes(read_answered(tmp_path / references, tmp_path / "predictions.jsonl"))
        assert report.referring is not None
        assert (report.referring.answers, report.referring.correct, report.malformed) == (2, 1, 0)


def test_lists_byte_order_marks_and_odd_line_breaks_are_read(tmp_path: Path) -> None:
    record = guide_record()
    first, second, third = answers_of(record)
    (tmp_path / "references.json").write_text(json.dumps([record]), encoding="utf-8")
    line = json.dumps({"id": 2324, "answers": [first, f"{second}\u2028", third]}, ensure_ascii=False)
    (tmp_path / "predictions.jsonl").write_text("\ufeff" + line, encoding="utf-8")
    report = score_boxes(read_answered(tmp_path / "references.json", tmp_path / "predictions.jsonl"))
    assert report.referring is not None and report.referring.correct == 3
    (tmp_path / "predictions.jsonl").write_text("[" * 100_000)
    with pytest.raises(UserError, match="predictions.jsonl:1: is not usable JSON"):
        read_answered(tmp_path / "references.json", tmp_path / "predictions.jsonl")


def random_boxes(rng: np.random.Generator, count: int) -> list[LabelledBox]:
    corners = rng.integers(0, 700, size=(count, 2))
    sizes = rng.integers(40, 300, size=(count, 2))
    labels = rng.choice(CLASSES, size=count)
    return [
        LabelledBox(str(label), tuple(row))
        for label, row in zip(labels, np.concatenate([corners, corners + sizes], 1).tolist(), strict=True)
    ]


def shaken(rng: np.random.Generator, items: list[LabelledBox]) -> list[LabelledBox]:
    """Most boxes moved a little, some with another label, some left out, some invented."""
    moved = []
    for item in items:
        if rng.random() < 0.85:
            box = np.clip(np.array(item.box) + rng.integers(-25, 26, 4), 0, 1000)
            moved.append(LabelledBox(str(rng.choice(CLASSES)) if rng.random() < 0.1 else item.label, tuple(box)))
    return moved + random_boxes(rng, int(rng.integers(0, 3)))


def in_pixels(item: LabelledBox) -> list[float]:
    x1, y1, x2, y2 = (v / 1000 * side for v, side in zip(item.box, (WIDTH, HEIGHT) * 2, strict=True))
    return [x1, y1, x2 - x1, y2 - y1]


def by_pycocotools(
    truth: list[list[LabelledBox]], found: list[list[LabelledBox]], scores: list[list[float]], classes: tuple[str, ...]
) -> tuple[float, float]:
    """AP50:95 and AP50 of these classes as its documentation says: truth as a dataset, results by `loadRes`."""
    truth_coco = COCO()
    boxes = [(number, item) for number, items in enumerate(truth) for item in items]
    truth_coco.dataset = {
        "info": {},
        "images": [{"id": number, "width": WIDTH, "height": HEIGHT} for number in range(len(truth))],
        "categories": [{"id": 7 + index, "name": name} for index, name in enumerate(CLASSES)],
        "annotations": [
            {
                "id": index,
                "image_id": number,
                "category_id": 7 + CLASSES.index(item.label),
                "bbox": in_pixels(item),
                "area": in_pixels(item)[2] * in_pixels(item)[3],
                "iscrowd": 0,
            }
            for index, (number, item) in enumerate(boxes, start=1)
        ],
    }
    truth_coco.createIndex()
    results = [
        {"image_id": number, "category_id": 7 + CLASSES.index(item.label), "bbox": in_pixels(item), "score": value}
        for number, (items, values) in enumerate(zip(found, scores, strict=True))
        for item, value in zip(items, values, strict=True)
    ]
    evaluation = COCOeval(truth_coco, truth_coco.loadRes(results), "bbox")
    evaluation.params.catIds = [7 + CLASSES.index(name) for name in classes]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


@pytest.mark.parametrize("with_scores", [True, False], ids=["scores", "no scores"])
def test_average_precision_is_that_of_pycocotools(with_scores: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    truth = [random_boxes(rng, int(rng.integers(1, 9))) for _ in range(23)]
    # An answer groups its boxes by label; the results given to pycocotools stand in the same order.
    found = [sorted(shaken(rng, items), key=lambda item: item.label) for items in truth]
    scores = [[float(rng.random()) if with_scores else 1.0 for _ in items] for items in found]
    predictions = [
        {"id": number, "answer": detection_answer(items), **({"scores": values} if with_scores else {})}
        for number, (items, values) in enumerate(zip(found, scores, strict=True))
    ]
    report = score([detection_record(number, items) for number, items in enumerate(truth)], predictions, tmp_path)
    assert report.detection is not None
    overall = report.detection.overall
    expected = by_pycocotools(truth, found, scores, CLASSES)
    assert 0.1 < expected[0] < expected[1] < 0.95
    assert (overall.ap50_95, overall.ap50) == pytest.approx(expected, abs=1e-6)
    for name in CLASSES:
        of_class = report.detection.per_class[name]
        assert (of_class.ap50_95, of_class.ap50) == pytest.approx(
            by_pycocotools(truth, found, scores, (name,)), abs=1e-6
        )


def test_an_answer_may_hold_more_boxes_than_cocos_limit(tmp_path: Path) -> None:
    grid = [LabelledBox("rec", (x, y, x + 50, y + 50)) for x in range(0, 960, 60) for y in range(0, 960, 60)]
    report = score([detection_record(0, grid)], [{"id": 0, "answer": detection_answer(grid)}], tmp_path)
    assert report.detection is not None and len(grid) > 200
    assert report.detection.overall.ap50_95 == pytest.approx(1.0)
    assert report.detection.overall.recall == 1.0


def test_counts_by_hand(tmp_path: Path) -> None:
    cat, dog = LabelledBox("cat", (0, 0, 100, 100)), LabelledBox("dog", (500, 500, 700, 900))
    references = [detection_record(number, [cat, dog]) for number in range(3)]
    predictions = [
        # Right, in other letters; one box too many; a label that no reference has.
        {"id": 0, "answer": "<ref>Cat</ref><box>[[0, 0, 100, 90], [0, 0, 99, 100]]</box><ref>cow</ref>[[1, 1, 9, 9]]"},
        # The two labels exchanged.
        {"id": 1, "answer": detection_answer([LabelledBox("dog", cat.box), LabelledBox("cat", dog.box)])},
        {"id": 2, "answer": "There is nothing to see."},
    ]
    report = score(references, predictions, tmp_path)
    assert report.detection is not None
    cats, dogs, cows = (report.detection.per_class[name] for name in ("cat", "dog", "cow"))
    assert (cats.true_boxes, cats.predicted_boxes, cats.precision, cats.recall) == (3, 3, 1 / 3, 1 / 3)
    assert (dogs.true_boxes, dogs.predicted_boxes, dogs.precision, dogs.recall, dogs.f1) == (3, 1, 0, 0, 0)
    assert (cows.true_boxes, cows.predicted_boxes, cows.ap50) == (0, 1, None)
    overall = report.detection.overall
    assert (overall.precision, overall.recall) == (1 / 5, 1 / 6)
    assert overall.f1 == pytest.approx(2 / (5 + 6))
    assert overall.ap50 == pytest.approx((cats.ap50 + dogs.ap50) / 2)
    assert (report.malformed, report.without_box) == (2, 1)
    text = report.as_text()
    assert "untagged_box               1" in text and "cow" in text


def test_boxes_on_a_picture_without_objects_are_false_positives(tmp_path: Path) -> None:
    boxes = [LabelledBox("cat", (100, 100, 400, 420)), LabelledBox("dog", (10, 20, 30, 50))]
    empty = detection_record(2, [])
    empty["conversations"][1]["value"] = "There is nothing to detect."
    records = [detection_record(1, boxes[:1]), empty]
    right = {"id": 1, "answer": detection_answer(boxes[:1])}
    for said, predicted, precision in (
        (detection_answer(boxes), 3, 1 / 3),
        ("There is nothing.", 1, 1.0),
        ("The numbers are [1, 2, 3, 4].", 1, 1.0),
    ):
        report = score(records, [right, {"id": 2, "answer": said}], tmp_path)
        assert report.detection is not None
        overall = report.detection.overall
        assert (overall.true_boxes, overall.predicted_boxes) == (1, predicted), said
        assert overall.precision == pytest.approx(precision)
        assert report.turns_without_boxes == (predicted == 1)


def test_turns_without_boxes_are_not_scored(tmp_path: Path) -> None:
    record = detection_record(0, [LabelledBox("cat", (0, 0, 100, 100))])
    (answer,) = answers_of(record)
    record["conversations"] += [{"from": "human", "value": "Why?"}, {"from": "gpt", "text": "See [1]."}]
    report = score([record], [{"id": 0, "answers": [answer, "Because."]}], tmp_path)
    assert (report.answers, report.turns_without_boxes, report.malformed) == (1, 1, 0)


def one_turn(answer: str) -> dict[str, Any]:
    return {"id": 2324, "conversations": [{"from": "gpt", "value": answer}]}


NO_SIZE = {"id": 2324, "sent": "a", "bbox": [1, 2, 3, 4]}
NO_ANSWER = {"id": 2324, "answer": ""}
ONE_BOX = {"id": 2324, "answer": "[[1, 2, 3, 4]]"}


@pytest.mark.parametrize(
    ("references", "prediction", "message"),
    [
        ([guide_record()], {"id": 1, "answer": ""}, "has no id of"),
        ([guide_record()], {"id": 2324, "answers": [""] * 4}, "4 answers for the 3 gpt turns"),
        ([guide_record()], {"id": 2324}, "expected 'conversations'"),
        ([guide_record()], {"id": 2324, "answer": 5}, "expected texts"),
        ([guide_record()], {**ONE_BOX, "scores": [0.1, 0.2]}, "'scores' has [2] numbers"),
        ([guide_record()], {**ONE_BOX, "scores": "no"}, "one number a box"),
        ([guide_record()], {**ONE_BOX, "scores": ["inf"]}, "finite numbers"),
        ([guide_record()], {"id": 2324, "conversations": "no"}, "a list of turns"),
        ([guide_record(), guide_record()], NO_ANSWER, "references.jsonl:2: id '2324' was already used in"),
        ([NO_SIZE], NO_ANSWER, "'width'"),
        ([{**NO_SIZE, "bbox": [9, 2, 3, 4], "width": 9, "height": 9}], NO_ANSWER, "no area"),
        ([one_turn("<ref>a</ref><box>[[1, 2]]</box>")], NO_ANSWER, "malformed (wrong_count)"),
        ([one_turn("hello")], NO_ANSWER, "no gpt turn holds a box"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    references: list[dict[str, Any]], prediction: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="jsonl") as caught:
        score(references, [prediction], tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(("line", "message"), [("{", "2: is not valid JSON"), ("[1]", "2: expected one JSON object")])
def test_broken_lines_are_named(line: str, message: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "good.jsonl", [guide_record()])
    (tmp_path / "bad.jsonl").write_text(f"\n{line}\n")
    with pytest.raises(UserError, match=message):
        read_answered(tmp_path / "good.jsonl", tmp_path / "bad.jsonl")


def test_command_scores_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    item = LabelledBox("cat", (250, 250, 750, 750))
    Image.new("RGB", (320, 320), "white").save(tmp_path / "0.png")
    write_jsonl(tmp_path / "truth.jsonl", [detection_record(0, [item])])
    write_jsonl(tmp_path / "answers.jsonl", [{"id": 0, "answer": "<ref>cat</ref><box>[[500, 250, 750, 750]]</box>"}])
    files = {"--predictions": tmp_path / "answers.jsonl", "--references": tmp_path / "truth.jsonl"}
    argv = ["score-boxes", *(str(word) for pair in files.items() for word in pair)]
    assert main(argv) == 0
    assert "AP50:95" in capsys.readouterr().out
    sheet = tmp_path / "new" / "sheet.png"
    assert main([*argv, "--json", "--sheet", str(sheet), "--root", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["detection"]["overall"]["recall"] == 1.0
    assert printed["referring"] is None
    drawn = np.asarray(Image.open(sheet)).astype(int)
    blue, orange = (np.abs(drawn - colour).sum(axis=2) == 0 for colour in ([0, 110, 190], [255, 170, 0]))
    # Both boxes end at the same column; the true one begins a quarter of the picture earlier.
    left_of = {name: int(np.nonzero(where.sum(axis=0) > 100)[0].min()) for name, where in (("t", blue), ("p", orange))}
    assert left_of["p"] - left_of["t"] == pytest.approx(80, abs=4)


def test_the_html_shows_the_worst_answers_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = LabelledBox("cat", (0, 100, 400, 900)), LabelledBox("a <dog>", (600, 100, 1000, 900))
    for number in range(2):
        Image.new("RGB", (320, 200), "white").save(tmp_path / f"{number}.png")
    write_jsonl(tmp_path / "truth.jsonl", [detection_record(number, [left, right]) for number in range(2)])
    half_right = f"<ref>cat</ref>{box_text([left.box])}<ref>cat</ref>{box_text([(5, 600, 60, 650), (1, 2)])}"
    answers = [{"id": 0, "answer": detection_answer([left, right])}, {"id": 1, "answer": half_right}]
    write_jsonl(tmp_path / "answers.jsonl", answers)
    out = tmp_path / "new" / "boxes.html"
    argv = ["--predictions", tmp_path / "answers.jsonl", "--references", tmp_path / "truth.jsonl", "--root", tmp_path]
    assert main(["score-boxes", *map(str, argv), "--html", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    cards = text.split("<article")[1:]
    assert ["1.png" in cards[0], "0.png" in cards[1]] == [True, True]
    assert 'data-missed="1" data-false="1"' in cards[0] and 'data-missed="0" data-false="0"' in cards[1]
    assert cards[0].count('class="true"') == 2 and cards[0].count('class="found"') == 2
    assert '<rect x="600" y="100" width="400" height="800" class="true"><title>a &lt;dog&gt;</title>' in cards[0]
    assert "<tr><th>all</th><td>4</td><td>4</td>" in text and "2 answers, 1 malformed" in text
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sheet", "x.png"], "--sheet needs --root"),
        (["--sheet", "x.png", "--root", "."], "a.jpg: picture not found"),
        (["--html", "x.html", "--root", "."], "a.jpg: picture not found"),
    ],
)
def test_a_sheet_needs_its_pictures(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "truth.jsonl"
    write_jsonl(path, [guide_record()])
    assert main(["score-boxes", "--predictions", str(path), "--references", str(path), *flags]) == 1
    assert message in capsys.readouterr().err
