"""One self-contained HTML file about a model on a task: scores with intervals, coverage, and how it was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from internvl_chat.contracts import Sample
from internvl_chat.reports.html import RunFacts, render
from internvl_chat.tasks.benchmark import Answers, Published, Scores

TEMPLATE = "benchmark_report.html.j2"
ANSWERS_SHOWN = 200


@dataclass(frozen=True)
class BenchmarkInput:
    """What a model made of a task.

    Args:
        samples: the questions.
        failures: why questions have no answer, by id.
        published: others' numbers on the same test set.
    """

    task: str
    facts: RunFacts
    scores: Scores
    samples: Sequence[Sample]
    answers: Answers
    failures: Mapping[str, str] = field(default_factory=dict)
    published: Sequence[Published] = ()


def render_benchmark_report(source: BenchmarkInput) -> str:
    """The report as HTML text; the same input gives the same text."""
    measures = list(dict.fromkeys(name for other in source.published for name in other.values))
    shown = [sample for sample in source.samples if sample.id in source.answers][:ANSWERS_SHOWN]
    return render(
        TEMPLATE,
        title=f"{source.task}: {source.facts.model}",
        conclusion=_conclusion(source),
        facts=[source.facts],
        rows=source.scores.rows,
        unread=any(row.unread for row in source.scores.rows),
        published=source.published,
        measures=measures,
        ours={name: source.scores.values.get(name) for name in measures},
        failures=source.failures,
        answers=[(s.id, s.turns[-1].text.replace("<video>\n", ""), source.answers[s.id][0]) for s in shown],
        num_answers=sum(sample.id in source.answers for sample in source.samples),
        num_questions=len(source.samples),
        text="" if source.scores.rows else source.scores.text,
    )


def _conclusion(source: BenchmarkInput) -> str:
    """The first score, and how much of the test set it is about."""
    answered, asked = sum(sample.id in source.answers for sample in source.samples), len(source.samples)
    coverage = f"{answered} of {asked} questions are answered ({answered / asked:.0%})"
    first = next((row for row in source.scores.rows if row.is_whole), None)
    if first is None:
        return f"{coverage}."
    reach = f" ({first.interval.low:.3f} to {first.interval.high:.3f})" if first.interval else ""
    unread = f"; {first.unread} replies could not be read and count as wrong" if first.unread else ""
    return f"{first.name} {first.value:.3f}{reach} on {first.count}; {coverage}{unread}."
