"""Clips that show several objects, captioned with the track of each: nothing but the box differs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from internvl_chat.contracts import Sample, TrackRows
from internvl_chat.inference.requests import with_tracks
from internvl_chat.scoring.captions.caption_scores import score_captions
from internvl_chat.scoring.control_record import OWN, Probe
from internvl_chat.scoring.significance import share_interval
from internvl_chat.tasks.benchmark import Answers, Benchmark, ScoreRow, Scores
from internvl_chat.tasks.control.pairs import pairs_of, read_other_targets
from internvl_chat.tasks.control.probes import METRIC, ControlResult
from internvl_chat.tasks.intentvc.questions import read_caption_set

SWAP, NULL = Probe("swap", 1.0), Probe("null", 1.0)
_PAIRS = "other_target.json"


def read(source: Path) -> Benchmark:
    """Every question with its own track, with none, and with another object's where the clip has several.

    Args:
        source: as for `intentvc`. Which clip shows the same video with another object's box is read from
            `other_target.json` in the folder; records of one video with different tracks are each other's.
    Raises:
        UserError: it is no such test set.
    """
    asked = read_caption_set(source)
    samples = {sample.id: sample for sample in asked.samples}
    pairs_file = source / _PAIRS
    others = read_other_targets(pairs_file) if pairs_file.is_file() else pairs_of(asked.samples)
    others = {i: other for i, other in others.items() if i in samples and other in samples}
    questions = {OWN: asked.samples, NULL: [_without_box(sample) for sample in asked.samples if sample.tracks]}
    questions[SWAP] = [with_tracks(samples[i], samples[other].tracks) for i, other in others.items()]

    def score(answers: Answers) -> Scores:
        captions = {
            probe: {s.id: answers[probe.ask_id(s.id)][0] for s in of_probe if probe.ask_id(s.id) in answers}
            for probe, of_probe in questions.items()
        }
        result = ControlResult(
            captions,
            others,
            asked.references,
            METRIC,
            lambda texts, truth: score_captions(texts, truth, java=False).corpus()[METRIC],
            {i: sample.object_name for i, sample in samples.items()},
        )
        return Scores(result.rates(), result.table(), result.to_json(), _rows(result))

    return Benchmark(tuple(_named(questions)), score)


def _rows(result: ControlResult) -> list[ScoreRow]:
    """The share of captions that each probe changes, and where truth is known of those that obey the box."""
    rows: list[ScoreRow] = []
    for point in result.points():
        shares: dict[str, float | None] = {"changed": point.changed}
        if point.probe == OWN.name:
            shares = {"that are right": point.own}
        if point.probe == SWAP.name:
            shares["that are the other object's"] = point.other
        rows += [
            ScoreRow(f"{point.probe}: captions {what}", share, point.clips, share_interval(round(share * n), n))
            for what, share in shares.items()
            if share is not None and (n := point.clips)
        ]
    return rows


def _without_box(sample: Sample) -> Sample:
    nowhere = TrackRows(sample.object_name, np.zeros(1), np.zeros((1, 4)), "always")
    return with_tracks(sample, [nowhere] * len(sample.tracks))


def _named(questions: dict[Probe, Sequence[Sample]]) -> Iterable[Sample]:
    """The questions under ids that say what was done to the track."""
    for probe, samples in questions.items():
        yield from (replace(sample, id=probe.ask_id(sample.id)) for sample in samples)
