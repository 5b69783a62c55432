"""The report's plots, as SVG text that needs no font and nothing from outside."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from internvl_chat.scoring.captions.caption_scores import FloatArray
from internvl_chat.tasks.intentvc.assessment import Assessment

# Okabe and Ito's colours, told apart by the colour-blind too; runs take them in turn.
RUN_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
WIDTH_INCHES = 4.4
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "report",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "grid.color": "#e4e4e0",
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
}


def colour_of(number: int) -> str:
    """The colour of the run with this number."""
    return RUN_COLOURS[number % len(RUN_COLOURS)]


def _draw(height_inches: float, rows: int, columns: int, paint: Any) -> str:
    """SVG of a grid of axes that `paint` fills: a figure of a phone's width."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches))
        paint(figure.subplots(rows, columns, squeeze=False))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def intervals_plot(runs: Mapping[str, Assessment], metrics: Sequence[str]) -> str:
    """Each run's score in each metric with its 95 % interval."""

    def paint(axes: Any) -> None:
        for metric, ax in zip(metrics, axes.flat, strict=False):
            for number, run in enumerate(runs.values()):
                interval, score = run.intervals[metric], run.scores[metric]
                ax.plot([interval.low, interval.high], [number, number], color=colour_of(number), linewidth=2)
                ax.plot([score], [number], "o", color=colour_of(number), markersize=6)
            ax.set_title(metric, fontsize=9, loc="left")
            ax.set_yticks(range(len(runs)), list(runs) if ax in axes[:, 0] else [""] * len(runs))
            ax.set_ylim(len(runs) - 0.5, -0.5)
            ax.grid(axis="y", visible=False)
            ax.locator_params(axis="x", nbins=4)
        for ax in list(axes.flat)[len(metrics) :]:
            ax.set_visible(False)

    rows = -(-len(metrics) // 2)
    return _draw(rows * (0.75 + 0.22 * len(runs)), rows, 2, paint)


def gains_plot(gains_by_run: Mapping[str, FloatArray], metric: str, baseline: str, first_colour: int) -> str:
    """Each run's gain over the baseline clip by clip, from the largest loss to the largest gain."""

    def paint(axes: Any) -> None:
        ax = axes[0, 0]
        for number, (run, gains) in enumerate(gains_by_run.items(), start=first_colour):
            share = (np.arange(len(gains)) + 0.5) / len(gains) * 100
            ax.plot(share, np.sort(gains), color=colour_of(number), label=run, linewidth=2)
        ax.axhline(0, color="#555555", linewidth=1)
        ax.set_xlabel("clips, %")
        ax.set_ylabel(f"{metric} minus {baseline}'s")
        ax.set_xlim(0, 100)
        ax.legend(frameon=False)

    return _draw(2.7, 1, 1, paint)


def histogram_plot(values: FloatArray, metric: str) -> str:
    """How a single run's clips spread over the scores."""

    def paint(axes: Any) -> None:
        ax = axes[0, 0]
        ax.hist(values, bins=min(30, max(5, len(values) // 8)), color=colour_of(0))
        ax.set_xlabel(f"{metric} of a clip")
        ax.set_ylabel("clips")
        ax.grid(axis="x", visible=False)

    return _draw(2.5, 1, 1, paint)


def groups_plot(runs: Mapping[str, Assessment], kind: str, metric: str) -> str:
    """Each run's score in every group of a grouping."""
    names = list(next(iter(runs.values())).groups[kind])

    def paint(axes: Any) -> None:
        ax = axes[0, 0]
        for number, (run, assessment) in enumerate(runs.items()):
            scores = [assessment.groups[kind][name].scores[metric] for name in names]
            ax.plot(scores, range(len(names)), "o", color=colour_of(number), label=run, markersize=5, alpha=0.9)
        captions = [next(iter(runs.values())).groups[kind][name].captions for name in names]
        ax.set_yticks(range(len(names)), [f"{name} ({n})" for name, n in zip(names, captions, strict=True)])
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_xlabel(metric)
        ax.tick_params(axis="x", labeltop=len(names) > 20)
        if len(runs) > 1:
            ax.figure.legend(frameon=False, loc="outside upper left", ncols=3)

    return _draw(1.1 + 0.05 * (len(runs) - 1) + 0.19 * len(names), 1, 1, paint)
