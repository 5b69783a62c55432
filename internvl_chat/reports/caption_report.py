"""One self-contained HTML file about a few runs: scores, differences, plots, and a sheet of clips to browse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from internvl_chat.boxes import BoxArray
from internvl_chat.contracts import Sample
from internvl_chat.data.records.annotations import category_of
from internvl_chat.reports import plots
from internvl_chat.reports.clip_pictures import ShownClip
from internvl_chat.reports.conclusion import concluded, meanings
from internvl_chat.reports.html import RunFacts, data_uri, render
from internvl_chat.scoring.captions.caption_scores import CHALLENGE_METRICS, NO_JAVA_SUFFIX, FloatArray
from internvl_chat.scoring.captions.ptb import tokenize
from internvl_chat.scoring.control_record import ControlRecord
from internvl_chat.scoring.significance import Difference, compare
from internvl_chat.tasks.intentvc.assessment import Assessment
from internvl_chat.tasks.intentvc.groups import PRESENCE_BOUNDS, SIZE_BOUNDS
from internvl_chat.tasks.intentvc.ranking import rank_runs

TEMPLATE = "caption_report.html.j2"
# Of fewer clips a plot shows less than the table.
FEWEST_CLIPS_PLOTTED = 10


@dataclass(frozen=True)
class ClipCaption:
    """What a run says about a clip: each word with whether a reference has it, scores by metric, and the gain."""

    run: int
    words: Sequence[tuple[str, bool]]
    scores: Mapping[str, float]
    gain: float | None


@dataclass(frozen=True)
class Clip:
    """A card of the sheet."""

    id: str
    category: str
    references: Sequence[str]
    captions: Sequence[ClipCaption]
    shown: ShownClip


@dataclass(frozen=True)
class ReportInput:
    """What a report is about; the first run is the baseline that the others are compared with.

    `tracks` hold at least the ids that every run was scored on, or are None; `clips` are samples by id, those that are
    to be shown; `control` is how captions followed the box, where it was measured; `facts` how each run was made.
    """

    title: str
    runs: Mapping[str, Assessment]
    predictions: Mapping[str, Mapping[str, str]]
    references: Mapping[str, Sequence[str]]
    tracks: Mapping[str, BoxArray] | None
    clips: Mapping[str, Sample]
    num_clips: int = 100
    num_frames: int = 4
    resamples: int = 1000
    seed: int = 0
    control: ControlRecord | None = None
    facts: Sequence[RunFacts] = ()


def _extremes(ids: Sequence[str], values: FloatArray, number: int) -> list[str]:
    """The ids of the `number` largest and smallest values, half and half, from the largest to the smallest."""
    order = [ids[row] for row in np.argsort(-values, kind="stable")]
    upper = -(-number // 2)
    return order if number >= len(order) else order[:upper] + order[len(order) - (number - upper) :]


def _clips(source: ReportInput, ids: Sequence[str], metric: str) -> list[Clip]:
    tables = [assessment.table.of_ids(ids).per_caption() for assessment in source.runs.values()]
    names = [name for name in next(iter(source.runs.values())).scores if not name.startswith("BLEU")]
    # One run is sorted by its score, several by the last one's gain over the first.
    shown = _extremes(ids, tables[-1][metric] - (tables[0][metric] if len(tables) > 1 else 0), source.num_clips)
    row_of = {video_id: row for row, video_id in enumerate(ids)}

    def clip(video_id: str) -> Clip:
        row, references = row_of[video_id], source.references[video_id]
        known = {word for text in references for word in tokenize(text).split()}
        captions = []
        for number, (said, table) in enumerate(zip(source.predictions.values(), tables, strict=True)):
            words = [(word, set(tokenize(word).split()) <= known) for word in said[video_id].split()]
            gain = float(table[metric][row] - tables[0][metric][row]) if number else None
            captions.append(ClipCaption(number, words, {name: float(table[name][row]) for name in names}, gain))
        boxes = source.tracks[video_id] if source.tracks else None
        drawn = ShownClip.of(source.clips.get(video_id), source.num_frames, boxes=boxes)
        return Clip(video_id, category_of(video_id), references, captions, drawn)

    return [clip(video_id) for video_id in shown]


def _differences(source: ReportInput) -> dict[str, dict[str, Difference]]:
    baseline, *others = source.runs
    return {
        run: compare(source.runs[run].table, source.runs[baseline].table, source.resamples, source.seed)
        for run in others
    }


def _drawings(source: ReportInput, ids: Sequence[str], metric: str, metrics: Sequence[str]) -> list[tuple[str, str]]:
    """Captions and data URIs of the plots; none of a handful of clips."""
    if len(ids) < FEWEST_CLIPS_PLOTTED:
        return []
    runs, (baseline, *others) = source.runs, list(source.runs)
    scores = {run: assessment.table.of_ids(ids).per_caption()[metric] for run, assessment in runs.items()}
    drawn = [("Scores with 95 % bootstrap intervals", plots.intervals_plot(runs, metrics))]
    if others:
        gains = {run: scores[run] - scores[baseline] for run in others}
        title = f"Gain of each clip over {baseline}, sorted"
        drawn.append((title, plots.gains_plot(gains, metric, baseline, first_colour=1)))
    else:
        drawn.append((f"{metric} of the clips", plots.histogram_plot(scores[baseline], metric)))
    for kind in ("size", "presence", "category"):
        if kind in _shared_groups(runs.values()):
            drawn.append((f"{metric} by {kind}", plots.groups_plot(runs, kind, metric)))
    return [(title, data_uri("image/svg+xml", svg.encode("utf-8"))) for title, svg in drawn]


def _shared_groups(runs: Iterable[Assessment]) -> list[str]:
    """The groupings whose groups all runs have, and that put any two clips together."""
    first, *others = runs
    shared = [k for k, groups in first.groups.items() if all(groups.keys() == o.groups[k].keys() for o in others)]
    return [k for k in shared if len(first.groups[k]) < len(first.table.ids)]


@dataclass(frozen=True)
class Report:
    """The report as HTML text, and why videos are not shown in it, by id."""

    html: str
    faults: Mapping[str, str]


def render_report(source: ReportInput) -> Report:
    """Draw the report; the same input gives the same text.

    Raises:
        UserError: the runs share no id.
    """
    first = next(iter(source.runs.values()))
    metrics = [first.table.name(m) for m in CHALLENGE_METRICS if first.table.name(m) in first.scores]
    differences = _differences(source)
    ids = [i for i in first.table.ids if all(i in set(run.table.ids) for run in source.runs.values())]
    clips = _clips(source, ids, metrics[0])
    html = render(
        TEMPLATE,
        title=source.title,
        conclusion=concluded(source.runs, differences, metrics[0], len(ids), source.control),
        facts=[facts for facts in source.facts if facts.is_known],
        meanings=meanings(first.scores),
        runs=source.runs,
        names=[*metrics, *(name for name in first.scores if name not in metrics)],
        metric=metrics[0],
        standings={s.run: s for s in rank_runs({name: run.scores for name, run in source.runs.items()})},
        differences=differences,
        groups=_shared_groups(source.runs.values()),
        drawings=_drawings(source, ids, metrics[0], metrics),
        clips=clips,
        num_shared=len(ids),
        num_references=len(source.references),
        colours=[plots.colour_of(number) for number in range(len(source.runs))],
        java=first.table.java,
        size_bounds=SIZE_BOUNDS,
        presence_bounds=PRESENCE_BOUNDS,
        suffix=NO_JAVA_SUFFIX,
        control=source.control,
    )
    return Report(html, {clip.id: clip.shown.fault for clip in clips if clip.shown.fault})
