"""Consensus, against pycocoevalcap called pair by pair."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider

from internvl_chat.choices import CONSENSUS_UTILITIES, Utility
from internvl_chat.contracts import UserError
from internvl_chat.scoring.captions.caption_scores import score_captions
from internvl_chat.scoring.captions.ptb import tokenize
from internvl_chat.scoring.consensus import choose_by_consensus

Captions = dict[str, list[str]]


def uneven(captions: Captions) -> Captions:
    """Different numbers of candidates, some of them equal, one of a single word."""
    cut = {i: texts[: 2 + number % 4] for number, (i, texts) in enumerate(captions.items())}
    cut["tram-1"] = [*captions["tram-1"], captions["tram-1"][3], "tram"]
    return cut


def mean_cider(candidates: Captions, video_id: str, index: int) -> float:
    """Mean CIDEr of a candidate against the others, each alone, document frequencies from all candidates."""
    own = candidates[video_id]
    truth = {i: [tokenize(text) for text in texts] for i, texts in candidates.items()}
    said = {i: [tokenize(own[index] if i == video_id else texts[0])] for i, texts in candidates.items()}
    row = list(candidates).index(video_id)
    against_all = float(Cider().compute_score(truth, said)[1][row]) * len(own)
    own_lengths = min(4, len(tokenize(own[index]).split()))
    return (against_all - 10 * own_lengths / 4) / (len(own) - 1)


def mean_bleu(candidates: Captions, video_id: str, index: int) -> float:
    own = [tokenize(text) for text in candidates[video_id]]
    values = []
    for other in range(len(own)):
        if other != index:
            with contextlib.redirect_stdout(io.StringIO()):
                _, alone = Bleu(4).compute_score({0: [own[other]]}, {0: [own[index]]})
            values.append(alone[3][0])
    return float(np.mean(values))


@pytest.mark.parametrize("video_id", ["kettle-1", "tram-1", "easel-2"])
def test_utilities_are_those_of_the_scorers(video_id: str, captions: Captions) -> None:
    candidates = uneven(captions)
    cider = [mean_cider(candidates, video_id, k) for k in range(len(candidates[video_id]))]
    bleu = [mean_bleu(candidates, video_id, k) for k in range(len(candidates[video_id]))]
    expected = {"CIDEr": cider, "BLEU-4": bleu, "mean": [(c / 10 + b) / 2 for c, b in zip(cider, bleu, strict=True)]}
    for utility in CONSENSUS_UTILITIES:
        choice = choose_by_consensus(candidates, utility)[video_id]
        assert choice.utilities == pytest.approx(expected[utility], abs=1e-9)
        assert choice.index == int(np.argmax(np.round(expected[utility], 9)))
        assert choice.caption == candidates[video_id][choice.index]


@pytest.mark.parametrize("utility", CONSENSUS_UTILITIES)
def test_what_the_others_say_beats_the_first_that_comes(utility: Utility, captions: Captions) -> None:
    def cider(chosen: dict[str, int]) -> float:
        said = {i: texts[chosen[i]] for i, texts in captions.items()}
        others = {i: [text for k, text in enumerate(texts) if k != chosen[i]] for i, texts in captions.items()}
        return score_captions(said, others, java=False).corpus()["CIDEr (no Java)"]

    chosen = {i: choice.index for i, choice in choose_by_consensus(captions, utility).items()}
    any_one = np.mean([cider(dict.fromkeys(captions, index)) for index in range(5)])
    assert cider(chosen) > 1.15 * any_one


def test_what_is_said_often_wins_and_silence_never() -> None:
    candidates = {
        "dog-1": ["", "a dog", "a small dog runs fast", "a cat sleeps here", "a small dog runs fast"],
        "cup-1": ["...", "the cup"],
        "ox-1": ["an ox"],
    }
    for utility in CONSENSUS_UTILITIES:
        choices = choose_by_consensus(candidates, utility)
        assert {i: choice.index for i, choice in choices.items()} == {"dog-1": 2, "cup-1": 1, "ox-1": 0}


@pytest.mark.parametrize("utility", ["CIDEr", "BLEU-4", "mean"])
def test_captions_without_spaces_vote_by_their_letters(utility: Utility) -> None:
    candidates = {
        "dog": ["一只猫在树上睡觉", "一只狗在公园里奔跑", "一只狗在公园里跑步"],
        "car": ["蓝色的船停着", "红色的车开过去", "红色的车开过来"],
    }
    chosen = choose_by_consensus(candidates, utility)
    assert [chosen[name].index for name in candidates] == [1, 1]


def test_what_cannot_be_chosen_from_is_named() -> None:
    with pytest.raises(UserError, match="'cup-1': none of its 2 candidates"):
        choose_by_consensus({"dog-1": ["a dog"], "cup-1": ["", "!"]})
    with pytest.raises(UserError, match="one video: use BLEU-4"):
        choose_by_consensus({"dog-1": ["a dog", "the dog"]})
    assert choose_by_consensus({"dog-1": ["a dog", "the dog"]}, "BLEU-4")["dog-1"].index == 0
    assert choose_by_consensus({}) == {}
