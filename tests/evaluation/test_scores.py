"""Caption metrics, on the challenge's real captions."""

from __future__ import annotations

import os

import pytest

from internvl_chat.contracts import UserError
from internvl_chat.data.annotations import read_captions
from internvl_chat.evaluation.scores import caption_scores
from tests.helpers import shared


def test_one_human_against_the_four_others(capsys: pytest.CaptureFixture[str]) -> None:
    captions = read_captions(shared("data/intentvc/train.json"))
    path = os.environ["PATH"]
    scores = caption_scores({i: c[0] for i, c in captions.items()}, {i: c[1:] for i, c in captions.items()})
    expected = {"BLEU-4": 0.43489, "METEOR": 0.34376, "CIDEr": 2.31529, "ROUGE-L": 0.61377}
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert list(scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "CIDEr", "ROUGE-L"]
    assert os.environ["PATH"] == path
    assert capsys.readouterr().out == ""


def test_predictions_of_another_split_are_refused() -> None:
    with pytest.raises(UserError, match="references"):
        caption_scores({"dog-18": "a dog"}, {"dog-15": ["a dog"]})
