"""The candidate that the other candidates agree with most: minimum Bayes risk over CIDEr, BLEU-4 or their mean.

Letters: C candidates of a video, G distinct n-grams of one length among them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from internvl_chat.choices import Utility
from internvl_chat.contracts import UserError
from internvl_chat.scoring.captions.ptb import tokenize
from internvl_chat.scoring.captions.unspaced import are_unspaced, by_characters

LONGEST = 4

Gram = tuple[str, ...]
Counts_CG = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, its number among the candidates, and the expected utility of every candidate, [C]."""

    caption: str
    index: int
    utilities: npt.NDArray[np.float64]


def _grams(tokens: Sequence[str], n: int) -> list[Gram]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def _count_matrix(sentences: Sequence[Sequence[str]], n: int) -> tuple[list[Gram], Counts_CG]:
    counts = [Counter(_grams(tokens, n)) for tokens in sentences]
    column = {gram: number for number, gram in enumerate(dict.fromkeys(gram for row in counts for gram in row))}
    matrix = np.zeros((len(counts), len(column)))
    for row, of_sentence in enumerate(counts):
        for gram, count in of_sentence.items():
            matrix[row, column[gram]] = count
    return list(column), matrix


def _bleu_pairs(lengths_C: npt.NDArray[np.float64], counts: Sequence[Counts_CG]) -> npt.NDArray[np.float64]:
    """Sentence BLEU-4 of each candidate (row) against each other one as its reference (column), [C, C]."""
    product = np.ones((len(lengths_C), len(lengths_C)))
    for matrix in counts:
        matches = np.stack([np.minimum(row, matrix).sum(axis=1) for row in matrix])
        product *= (matches + 1e-15) / (matrix.sum(axis=1)[:, None] + 1e-9)
    brevity = np.exp(np.minimum(0.0, 1 - (lengths_C[None, :] + 1e-9) / (lengths_C[:, None] + 1e-15)))
    return product ** (1 / LONGEST) * brevity


def _cider_pairs(lengths_C: npt.NDArray[np.float64], weighted: Sequence[Counts_CG]) -> npt.NDArray[np.float64]:
    """CIDEr-D of each candidate (row) against each other one as its reference (column), [C, C]."""
    total = np.zeros((len(lengths_C), len(lengths_C)))
    for matrix in weighted:
        norms = np.sqrt((matrix**2).sum(axis=1))
        clipped = np.stack([(np.minimum(row, matrix) * matrix).sum(axis=1) for row in matrix])
        scale = norms[:, None] * norms[None, :]
        total += np.divide(clipped, scale, out=np.zeros_like(clipped), where=scale > 0)
    # The scorer's length of a caption is its number of bigrams.
    lengths_C = np.maximum(lengths_C - 1, 0)
    penalty = np.exp(-((lengths_C[:, None] - lengths_C[None, :]) ** 2) / (2 * 6.0**2))
    return 10 * penalty * total / LONGEST


def _mean_over_others(pairs_CC: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    num = len(pairs_CC)
    return (pairs_CC.sum(axis=1) - np.diag(pairs_CC)) / max(1, num - 1)


def choose_by_consensus(candidates: Mapping[str, Sequence[str]], utility: Utility = "CIDEr") -> dict[str, Choice]:
    """The candidate of each video whose expected utility, with every other candidate as the truth, is highest.

    n-grams are counted once a video; CIDEr's document frequencies are those of all videos' candidates. Equal
    candidates vote each for itself, so what a system says often weighs more. Of equals the first is chosen.

    Args:
        candidates: id -> captions, any number from 1.
        utility: `CIDEr`, sentence `BLEU-4`, or the `mean` of CIDEr / 10 and BLEU-4.
    Raises:
        UserError: a video has no candidate with a word in it, or CIDEr is asked about a single video.
    """
    if not candidates:
        return {}
    if len(candidates) == 1 and utility != "BLEU-4":
        raise UserError("CIDEr weighs an n-gram by how few videos have it, and there is one video: use BLEU-4")
    # Where a script puts no spaces between words, the metrics score letters, and so do the candidates' votes.
    by_letters = are_unspaced(text for texts in candidates.values() for text in texts)
    written = by_characters if by_letters else str
    tokens = {i: [tokenize(written(text)).split() for text in texts] for i, texts in candidates.items()}
    for video_id, sentences in tokens.items():
        if not any(sentences):
            raise UserError(f"{video_id!r}: none of its {len(sentences)} candidates holds a word")
    matrices = {i: [_count_matrix(sentences, n) for n in range(1, LONGEST + 1)] for i, sentences in tokens.items()}
    num_videos_with = Counter(gram for parts in matrices.values() for grams, _ in parts for gram in grams)
    log_videos = math.log(len(tokens))

    choices = {}
    for video_id, parts in matrices.items():
        lengths = np.array([float(len(sentence)) for sentence in tokens[video_id]])
        utilities = np.zeros(len(lengths))
        if utility in ("CIDEr", "mean"):
            weighted = [
                matrix * np.array([log_videos - math.log(num_videos_with[gram]) for gram in grams])
                for grams, matrix in parts
            ]
            utilities += _mean_over_others(_cider_pairs(lengths, weighted)) / (1 if utility == "CIDEr" else 20)
        if utility in ("BLEU-4", "mean"):
            bleu = _mean_over_others(_bleu_pairs(lengths, [matrix for _, matrix in parts]))
            utilities += bleu / (1 if utility == "BLEU-4" else 2)
        # An empty caption is never an answer; equal utilities can differ in their last digits.
        index = int(np.argmax(np.where(lengths > 0, utilities.round(9), -1.0)))
        choices[video_id] = Choice(candidates[video_id][index], index, utilities)
    return choices
