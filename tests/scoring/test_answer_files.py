"""Answer files of other projects, scored by the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from internvl_chat.__main__ import main
from internvl_chat.contracts import UserError
from internvl_chat.scoring.answer_files import CAPTION_FIELDS, read_answers, read_choices
from internvl_chat.scoring.captions.ptb import tokenize
from tests.helpers import shared

PROMPT = "What is it?\nA. a dog\nB. a cat\nC. a cup\nBest option:"


def write(path: Path, items: list) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def test_multiple_choice_is_scored_by_category(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("A", "(A) a dog", "what"), ("(B)", "a cat", "what"), ("a cup", "C.", "who"), ("B", "A dog", "who")]
    items = [
        {"question_id": n, "prompt": PROMPT, "GT": gt, "pred": pred, "category": kind}
        for n, (gt, pred, kind) in enumerate(rows)
    ]
    items.append({"prompt": PROMPT, "GT": "C", "category": "who"})
    assert main(["score-answers", str(write(tmp_path / "a.jsonl", items)), "--as", "choices"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["questions"], result["correct"], result["unparsed"], result["accuracy"]) == (5, 3, 1, 0.6)
    accuracies = {name: scores["accuracy"] for name, scores in result["categories"].items()}
    assert accuracies == {"what": 1.0, "who": 0.333333}


def test_all_faults_of_a_file_are_told_by_line(tmp_path: Path) -> None:
    items = [{"prompt": PROMPT, "GT": "A", "pred": "A"}, {"prompt": PROMPT, "GT": "E"}, {"prompt": PROMPT, "GT": "dog"}]
    path = write(tmp_path / "a.jsonl", items)
    with pytest.raises(UserError) as error:
        read_choices(path)
    assert str(error.value).splitlines() == [
        f"{path}:2: 'GT' is 'E': expected one of A, B, C",
        f"{path}:3: 'GT' is 'dog': expected one of A, B, C",
    ]
    path = write(tmp_path / "b.jsonl", [{"GT": "A"}, [1], {"prompt": PROMPT, "GT": 3}, {"prompt": 7, "GT": "A"}])
    with pytest.raises(UserError) as error:
        read_choices(path)
    assert [line.removeprefix(f"{path}:")[0] for line in str(error.value).splitlines()] == list("1234")


def test_a_repeated_video_is_another_answer(tmp_path: Path) -> None:
    item = {"video_name": "v", "groundtruth": "a dog runs", "pred": "a dog"}
    assert len(read_answers(write(tmp_path / "a.jsonl", [item, item]), CAPTION_FIELDS)) == 2


def test_a_question_that_is_answered_again_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    item = {"video_name": "v", "groundtruth": "a dog runs", "pred": "a dog"}
    path = write(tmp_path / "a.jsonl", [item, {**item, "groundtruth": "it is brown"}, {**item, "pred": "a cat"}])
    read_answers(path, CAPTION_FIELDS)
    assert f"1 of 3 answers are to a question that an earlier line has, such as {path}:1 and {path}:3" in caplog.text
    caplog.clear()
    read_answers(write(path, [{key: item[key] for key in ("groundtruth", "pred")}] * 2), CAPTION_FIELDS)
    assert not caplog.text, "without an id nothing tells that they are of the same video"


@pytest.mark.parametrize("kind", ["choices", "captions"])
def test_a_file_whose_answers_have_another_name_is_no_file_of_wrong_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    items = [{"prompt": PROMPT, "GT": "A", "groundtruth": "a dog", "prediction": "A"}] * 2
    path = write(tmp_path / "a.jsonl", items)
    assert main(["score-answers", str(path), "--as", kind, "--no_java"]) == 1
    assert (
        f"{path}: no object has 'pred', where a model's answer is expected; they have GT, groundtruth, prediction"
        in (capsys.readouterr().err)
    )


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("choices", ["--filter"]),
        ("choices", ["--judge_model", "m"]),
        ("captions", ["--api_base", "u"]),
        ("qa", ["--spice"]),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, flags: list[str]
) -> None:
    assert main(["score-answers", str(tmp_path / "a.jsonl"), "--as", kind, *flags]) == 1
    assert f"--as {kind} has no use for {flags[0]}" in capsys.readouterr().err


def test_faults_of_a_description_are_told_by_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, said = tmp_path / "a.jsonl", []
    for item in ({"pred": "a dog"}, {"groundtruth": "...", "pred": "a dog"}, {"groundtruth": "a", "pred": "a " * 6000}):
        write(path, [{"groundtruth": "a dog", "pred": "a dog"}, item])
        assert main(["score-answers", str(path), "--as", "captions", "--no_java"]) == 1
        said.append(capsys.readouterr().err)
    assert all(f"{path}:2" in text for text in said)
    assert "has no 'groundtruth'" in said[0] and "leave it out" in said[1] and "cut it" in said[2]


def test_scores_are_shown_to_six_places_and_kept_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [{"groundtruth": f"a {n} dog runs over there", "pred": f"a {n} dog runs over there"} for n in "ab"]
    path, out = write(tmp_path / "a.jsonl", items), tmp_path / "o.json"
    for flags in ([], ["--json"]):
        assert main(["score-answers", str(path), "--as", "captions", "--no_java", "--out", str(out), *flags]) == 0
        shown = json.loads(capsys.readouterr().out)["scores"]
        assert shown["BLEU-1 (no Java)"] == 1.0
    assert 0.999999 < json.loads(out.read_text())["scores"]["BLEU-1 (no Java)"] < 1.0


def test_descriptions_have_pycocoevalcaps_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = json.loads(shared("data/intentvc/train.json").read_text())["captions"]
    texts = list(captions.values())[:60]
    items = [{"video_name": "v", "groundtruth": said[1], "pred": said[0]} for said in texts]
    path = write(tmp_path / "a.jsonl", items)
    assert main(["score-answers", str(path), "--as", "captions", "--no_java"]) == 0
    result = json.loads(capsys.readouterr().out)
    predicted = {n: [tokenize(said[0])] for n, said in enumerate(texts)}
    true = {n: [tokenize(said[1])] for n, said in enumerate(texts)}
    expected = {
        "CIDEr": Cider().compute_score(true, predicted)[0],
        "ROUGE-L": Rouge().compute_score(true, predicted)[0],
    }
    bleu = Bleu(4).compute_score(true, predicted, verbose=0)[0]
    expected |= {f"BLEU-{n}": score for n, score in enumerate(bleu, start=1)}
    assert {name.removesuffix(" (no Java)"): score for name, score in result["scores"].items()} == pytest.approx(
        expected, abs=5e-7
    )
    assert (result["coverage"], result["filter"]) == (1.0, None)
    assert set(result["intervals"]) == set(result["scores"])


def test_what_the_original_leaves_out_is_left_out_only_by_its_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["a dog runs on the grass", "a dog", "", "a " * 150, "a cat sits by the door"]
    items = [{"video_name": f"v{n}", "groundtruth": "a dog runs on grass", "pred": pred} for n, pred in enumerate(said)]
    path = str(write(tmp_path / "a.jsonl", items))
    results = []
    for flags in ([], ["--filter"]):
        assert main(["score-answers", path, "--as", "captions", "--no_java", *flags]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert [(r["answers"], r["scored"], r["coverage"], r["not_answered"]) for r in results] == [
        (5, 5, 1.0, 1),
        (5, 2, 0.4, 1),
    ]
    assert results[0]["scores"]["ROUGE-L (no Java)"] < results[1]["scores"]["ROUGE-L (no Java)"]
