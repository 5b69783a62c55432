"""`score`, `consensus`, `validate-submission`, `rank` and `report`, as they are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from internvl_chat.__main__ import main
from internvl_chat.commands.options import run_file
from internvl_chat.data.records.annotations import read_captions
from internvl_chat.data.records.record_questions import read_references
from internvl_chat.scoring.control_record import OWN, Probe
from internvl_chat.scoring.predictions import read_predictions, write_predictions
from internvl_chat.tasks.control.probes import ControlResult
from internvl_chat.tasks.intentvc.submission import challenge_ids, write_results
from tests.helpers import run_python

pytestmark = pytest.mark.process

CAPTIONS = Path(__file__).resolve().parent.parent / "files" / "captions.json"


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with references and the predictions of two runs, one in the challenge's form and one bare."""
    captions = read_captions(CAPTIONS)
    write(tmp_path / "references.json", {i: texts[2:] for i, texts in captions.items()})
    write(tmp_path / "a.json", {"version": "1", "captions": {i: texts[0] for i, texts in captions.items()}})
    shifted = [*list(captions)[1:], next(iter(captions))]
    write(tmp_path / "b.json", {i: captions[other][1] for i, other in zip(captions, shifted, strict=True)})
    tracks = {i: [[0, 0, 80 * (n + 1), 90], [0, 0, 0, 0]][: 1 + n % 2] for n, i in enumerate(captions)}
    write(tmp_path / "tracks.json", tracks)
    return tmp_path


def call(*argv: object) -> int:
    return main([str(arg) for arg in argv])


def test_score_prints_scores_intervals_groups_and_differences(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["score", "--predictions", runs / "a.json", "--references", runs / "references.json", "--no_java"]
    more = ["--tracks", runs / "tracks.json", "--baseline", runs / "b.json", "--resamples", 50]
    assert call(*argv, *more) == 0
    text = capsys.readouterr().out
    assert text.startswith("12 captions\n")
    assert call(*argv, *more, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    for name, score in content["scores"].items():
        interval = content["intervals"][name]
        assert interval["low"] <= score <= interval["high"]
        assert f"{name}" in text and f"{score:.4f}  {interval['low']:.4f} to {interval['high']:.4f}" in text
        assert f"{content['difference_from_baseline'][name]['value']:+.4f}" in text
    assert content["difference_from_baseline"]["CIDEr (no Java)"]["p_value"] < 0.05
    assert {kind: sum(g["captions"] for g in groups.values()) for kind, groups in content["groups"].items()} == {
        "category": 12,
        "size": 12,
        "presence": 12,
    }
    assert "by size" in text and "by presence" in text and "by category" not in text
    assert call(*argv, "--resamples", 5, "--by_category") == 0
    text = capsys.readouterr().out
    assert "by category" in text and "against the baseline" not in text


def test_the_same_captions_do_not_differ_whatever_else_a_run_captions(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = json.loads((runs / "a.json").read_text())["captions"]
    write(runs / "some.json", dict(list(captions.items())[:5]))
    argv = ["score", "--references", runs / "references.json", "--no_java", "--json", "--resamples", 20]
    argv.append("--allow_missing")
    for one, other in (("a.json", "some.json"), ("some.json", "a.json")):
        assert call(*argv, "--predictions", runs / one, "--baseline", runs / other) == 0
        out, err = capsys.readouterr()
        differences = json.loads(out)["difference_from_baseline"]
        assert {d["value"] for d in differences.values()} == {0.0} and {d["p_value"] for d in differences.values()} == {
            1
        }
        assert "5 captions are in both runs" in err
    write(runs / "other.json", {"yak-1": "a yak"})
    assert call(*argv, "--predictions", runs / "a.json", "--baseline", runs / "other.json") == 1
    assert "no scored id in common" in capsys.readouterr().err


def test_half_a_character_and_a_single_caption_are_scored(
    runs: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write(runs / "one.json", {"tram-1": "a tram \ud83d"})
    argv = ["score", "--predictions", runs / "one.json", "--references", runs / "references.json", "--json"]
    assert call(*argv, "--resamples", 5, "--allow_missing") == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert scores["CIDEr"] == 0 < scores["METEOR"]
    assert "CIDEr of a single caption is 0" in caplog.text


def test_score_says_what_it_leaves_out(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references = read_captions(runs / "references.json")
    del references["otter-2"], references["tram-1"]
    write(runs / "fewer.json", {**references, "yak-1": ["a yak"]})
    argv = ["score", "--predictions", runs / "a.json", "--references", runs / "fewer.json", "--no_java", "--json"]
    assert call(*argv, "--resamples", 5) == 1
    assert "has no caption for 1 of 11 references, such as yak-1; --allow_missing" in capsys.readouterr().err
    assert call(*argv, "--resamples", 5, "--allow_missing") == 0
    out, err = capsys.readouterr()
    assert "1 references have no prediction, such as yak-1" in err
    assert "2 predictions have no references, such as tram-1" in err
    content = json.loads(out)
    assert (content["captions"], content["without_prediction"], content["without_references"]) == (10, 1, 2)


def test_records_are_references_and_tracks_of_every_scorer(
    shapes_meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From one run's candidates to a choice, its scores by size, and a ranking: the meta JSON that trained is all."""
    truth = read_references(shapes_meta)
    out = tmp_path / "run" / "answers.jsonl"
    write_predictions(out, {i: [*texts[1:3], texts[2]] for i, texts in truth.items()})
    chosen = tmp_path / "chosen.jsonl"
    assert call("consensus", "--candidates", out.parent, "--out", chosen) == 0
    assert read_predictions(chosen) == {i: texts[2] for i, texts in truth.items()}
    argv = ["score", "--predictions", chosen, "--references", shapes_meta, "--tracks", shapes_meta, "--no_java"]
    capsys.readouterr()
    assert call(*argv, "--json", "--resamples", 3) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["captions"] == len(truth) == sum(g["captions"] for g in content["groups"]["size"].values())
    assert call("rank", f"a={out}", chosen, "--references", shapes_meta, "--no_java") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    write(tmp_path / "other.json", {"nobody": "nothing"})
    argv[2] = tmp_path / "other.json"
    assert call(*argv) == 1
    assert f"share no id, such as 'nobody' and {next(iter(truth))!r}" in capsys.readouterr().err


def test_consensus_writes_one_of_each_videos_candidates(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for metric in ("CIDEr", "BLEU-4", "mean"):
        out = runs / "deep" / f"{metric}.json"
        assert call("consensus", "--candidates", CAPTIONS, "--out", out, "--metric", metric, "--version", "v7") == 0
        content = json.loads(out.read_text())
        assert content["version"] == "v7"
        candidates = read_captions(CAPTIONS)
        assert all(text in candidates[i] for i, text in content["captions"].items())
        assert list(content["captions"]) == list(candidates)
        assert f"{out}: 12 captions; expected {metric} " in capsys.readouterr().out


def test_validate_submission_lists_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts: Any = {split: dict.fromkeys(challenge_ids(split), "a thing") for split in ("public", "private")}
    *files, archive = write_results(tmp_path, parts, "v1")
    assert call("validate-submission", archive) == 0
    assert capsys.readouterr().out == f"{archive}: valid\n"
    assert call("validate-submission", archive, "--part", "private") == 0
    assert call("validate-submission", files[0]) == call("validate-submission", files[0], "--part", "public") == 0
    capsys.readouterr()
    assert call("validate-submission", files[0], "--part", "private") == 1
    assert capsys.readouterr().out.endswith(f"{files[0]}: 1 problem\n")
    assert call("validate-submission", files[0], "--part", "both") == 1
    assert "--part public or private" in capsys.readouterr().err
    ids = write(tmp_path / "ids.json", {"public": ["dog-1"], "private": ["dog-2"]})
    assert call("validate-submission", archive, "--ids", ids) == 1
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3 and out[-1] == f"{archive}: 2 problems"
    own = write_results(tmp_path / "own", {"public": {"dog-1": "a dog"}}, "v1")[-1]
    assert call("validate-submission", own, "--part", "public", "--ids", ids) == 0


def test_rank_takes_predictions_and_scores(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references = ["--references", runs / "references.json"]
    assert call("rank", runs / "b.json", f"mine={runs / 'a.json'}", *references, "--no_java") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("1. mine: 9 points  CIDEr (no Java) ") and second.startswith("2. b: 6 points")
    for name in "ab":
        argv = ["score", "--predictions", runs / f"{name}.json", *references, "--no_java", "--json", "--resamples", 2]
        assert call(*argv) == 0
        (runs / f"{name}_scores.json").write_text(capsys.readouterr().out)
    assert call("rank", runs / "a_scores.json", runs / "b_scores.json", "--json") == 0
    standings = json.loads(capsys.readouterr().out)
    assert [(s["place"], s["run"], s["points"]) for s in standings] == [(1, "a_scores", 9), (2, "b_scores", 6)]


def test_rank_refuses_runs_that_were_scored_on_other_captions(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = json.loads((runs / "a.json").read_text())["captions"]
    write(runs / "easy.json", dict(list(captions.items())[:5]))
    references = ["--references", runs / "references.json", "--no_java"]
    assert call("rank", runs / "b.json", runs / "easy.json", *references) == 1
    assert "scored on different captions (b 12, easy 5)" in capsys.readouterr().err
    assert call("score", "--predictions", runs / "b.json", *references, "--json", "--resamples", 2) == 0
    (runs / "b_scores.json").write_text(capsys.readouterr().out)
    assert call("rank", runs / "b_scores.json", runs / "easy.json", *references) == 1
    assert "(b_scores 12, easy 5)" in capsys.readouterr().err


def test_rank_takes_the_mean_of_public_and_private(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The public captions say all, the private one nothing: together neither 1 nor 0, but their mean."""
    references = {"cat-15": ["a cat sits on a mat"], "dog-16": ["the dog runs in the yard"], "cat-18": ["a red ball"]}
    write(tmp_path / "references.json", references)
    said = {"cat-15": "a cat sits on a mat", "dog-16": "the dog runs in the yard", "cat-18": "nothing"}
    write(tmp_path / "mine.json", said)
    argv = ["rank", tmp_path / "mine.json", "--references", tmp_path / "references.json", "--no_java", "--json"]
    assert call(*argv) == 0
    scores = json.loads(capsys.readouterr().out)[0]["scores"]
    assert scores["BLEU-4 (no Java)"] == pytest.approx(0.5, abs=1e-3)
    assert scores["ROUGE-L (no Java)"] == pytest.approx(0.5)


def test_report_writes_one_file(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = runs / "new" / "report.html"
    argv = ["report", f"before={runs / 'b.json'}", runs / "a.json", "--references", runs / "references.json"]
    more = ["--tracks", runs / "tracks.json", "--no_java", "--resamples", 20, "--clips", 7, "--title", "Two runs"]
    assert call(*argv, *more, "--out", out) == 0
    assert capsys.readouterr().out.startswith(f"{out}: 2 runs, ")
    text = out.read_text(encoding="utf-8")
    assert text.count("<article") == 7 and "<h1>Two runs</h1>" in text and "largest gain of a<" in text


def test_report_compares_runs_on_the_clips_of_all(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = json.loads((runs / "a.json").read_text())["captions"]
    kept = dict(list(captions.items())[:7])
    write(runs / "some.json", kept)
    out = runs / "report.html"
    argv = ["report", runs / "a.json", runs / "some.json", "--references", runs / "references.json", "--out", out]
    assert call(*argv, "--no_java", "--resamples", 20) == 0
    text = out.read_text(encoding="utf-8")
    assert "7 of 12 clips that all runs were scored on" in text and text.count("<article") == 7
    write(runs / "other.json", {"nobody-1": "nobody"})
    assert (
        call("report", runs / "a.json", runs / "other.json", "--references", runs / "references.json", "--out", out)
        == 1
    )
    assert "the runs share no id" in capsys.readouterr().err


def control_file(runs: Path, own: dict[str, str], nothing: dict[str, str]) -> Path:
    probes = {OWN: own, Probe("null", 1.0): nothing}
    result = ControlResult(probes, {}, read_captions(runs / "references.json"), "CIDEr", lambda *_: 1.25)
    return write(runs / "control.json", result.to_json())


def test_report_of_how_captions_follow_the_box(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = read_captions(CAPTIONS)
    first = next(iter(captions))
    own = {i: texts[2] for i, texts in captions.items()}
    control = control_file(runs, own, {**own, first: "nothing"})
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    monkeypatch.setenv("DISPLAY", ":1")
    out = runs / "report.html"
    argv = ["report", "--control", control, "--references", runs / "references.json", "--no_java", "--resamples", 20]
    assert call(*argv, "--out", out, "--open") == 0
    assert shown == [out.as_uri()]
    text = out.read_text(encoding="utf-8")
    assert "largest gain of own box<" in text
    table = text.split("follow the box?")[1].split("</table>")[0]
    share = f"<td>{1 - 1 / len(captions):.3f}</td>"
    row = f"<tr><th>null</th><td>1</td><td>{len(captions)}</td>\n<td>{1 / len(captions):.3f}</td>{share}<td>–</td>"
    assert row in table and "<td>1.25</td><td>–</td></tr>" in table
    conclusion = text.split('class="conclusion">')[1].split("</p>")[0]
    assert conclusion.endswith(f"Without a box {1 / len(captions):.0%} of them change.")
    # Without references the clips are shown, marked where the box changes what is said.
    assert call("report", "--control", control, "--out", out) == 0
    text = out.read_text(encoding="utf-8")
    assert text.count("<article") == len(captions) and text.count("data-differs") == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["report", "--references", "references.json", "--out", "r.html"], "nothing to report"),
        (["report", "--control", "a.json", "--references", "references.json", "--out", "r.html"], "a.json: expected a"),
        (["score", "--predictions", "references.json", "--references", "references.json"], "expected a caption, got"),
        (["score", "--predictions", "a.json", "--references", "b.json"], "'kettle-1': expected a list of captions"),
        (["score", "--predictions", "none.json", "--references", "b.json"], "none.json: not found"),
        (["consensus", "--candidates", "a.json", "--out", "c.json"], "one caption an id, such as 'kettle-1'"),
        (["rank", "a.json"], "--references is needed"),
        (["consensus", "--candidates", CAPTIONS, "--out", CAPTIONS], "is read too and would be lost"),
        (["report", "m=a.json", "--references", "b.json", "--out", "a.json"], "--out a.json: is read too and would be"),
        (["rank", "a.json", "a.json"], "give NAME=FILE"),
        (["report", "a.json", "a.json", "--references", "references.json", "--out", "r.html"], "give NAME=FILE"),
        (["validate-submission", "none.zip"], "none.zip: cannot be read"),
    ],
)
def test_a_users_error_is_told(
    argv: list[object], said: str, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs)
    assert call(*argv) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "said"), [(".", "is a folder, expected a file to write"), ("a.json/r.html", "a.json is no folder that")]
)
@pytest.mark.parametrize("command", [["report", "a.json", "--references"], ["consensus", "--candidates"]])
def test_where_nothing_can_be_written_is_told_before_any_work(
    command: list[object],
    path: str,
    said: str,
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(runs)
    with pytest.raises(SystemExit, match="2"):
        call(*command, "references.json", "--out", path)
    assert said in capsys.readouterr().err


def test_a_run_is_called_by_its_file_unless_it_is_named() -> None:
    assert run_file("results/mine.json") == ("mine", Path("results/mine.json"))
    assert run_file("best=results/mine.json") == ("best", Path("results/mine.json"))
    assert run_file("runs/lr=2e-5/mine.json") == ("mine", Path("runs/lr=2e-5/mine.json"))
    assert run_file("best=runs/lr=2e-5/mine.json") == ("best", Path("runs/lr=2e-5/mine.json"))


def test_scoring_needs_no_torch(runs: Path) -> None:
    """All five commands, really run."""
    code = f"""
import sys
from internvl_chat.__main__ import main
shared = ["--references", "references.json", "--no_java", "--tracks", "tracks.json", "--resamples", "3"]
assert main(["score", "--predictions", "a.json", *shared]) == 0
assert main(["report", "a.json", "b.json", "--out", "report.html", *shared]) == 0
assert main(["consensus", "--candidates", {str(CAPTIONS)!r}, "--out", "chosen.json"]) == 0
assert main(["validate-submission", "a.json"]) == 1
assert main(["rank", "a.json", "b.json", *shared[:3]]) == 0
sys.exit("torch" in sys.modules)
"""
    result = run_python("-c", code, cwd=runs)
    assert result.returncode == 0, result.stderr
