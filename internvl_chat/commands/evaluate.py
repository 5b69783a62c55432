"""Ask a model the questions of a task, and score its answers: one command from a checkpoint to a table.

OUT gets answers.jsonl ({"id": ..., "answer": ..., and "candidates" where there are several}), scores.json and
report.html: scores with intervals, how many questions are answered and how many replies could not be read, which model
was asked how, and what others published on the same test set. Finished answers are kept in OUT/progress: the same
command goes on where a killed one stopped; under torchrun, ranks share the work. `score NAME` scores the answers again,
or anybody's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_chat.choices import TASKS
from internvl_chat.commands.options import (
    add_feeding_options,
    add_json,
    add_model_options,
    add_search_options,
    folder_to_write,
    rounded,
    tell,
)

if TYPE_CHECKING:
    from internvl_chat.inference.predict import Predictions
    from internvl_chat.tasks.benchmark import Benchmark, Scores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=TASKS, metavar="NAME", help=f"the task: {', '.join(TASKS)}")
    add_model_options(parser)
    add_search_options(parser)
    add_feeding_options(parser)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="the test set: a folder, a meta JSON, or a file of records")
    add("--out", type=folder_to_write, required=True, help="folder for answers and scores")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.inference.decoding import Decoding

    decoding = Decoding.from_arguments(args)
    from internvl_chat.files import write_json, write_text
    from internvl_chat.inference.handle import ModelHandle
    from internvl_chat.inference.predict import BatchLimits, fail_unless_any
    from internvl_chat.inference.ranks import Ranks
    from internvl_chat.inference.requests import Ask
    from internvl_chat.inference.session import PredictionSession
    from internvl_chat.reports.benchmark_report import BenchmarkInput, render_benchmark_report
    from internvl_chat.reports.html import RunFacts
    from internvl_chat.scoring.predictions import ANSWERS_NAME, write_facts, write_predictions
    from internvl_chat.tasks.benchmark import task_named

    benchmark = task_named(args.task).read(args.data)
    opened = ModelHandle.from_arguments(args, Ranks.join(args.dtype))
    asks = [Ask(sample.id, (sample,)) for sample in benchmark.samples]
    limits = BatchLimits(args.batch_tokens, args.num_workers)
    session = PredictionSession.alone(opened, args.num_frames)
    predictions = session.predict(asks, decoding, limits, args.out / "progress", keep_tags=benchmark.keep_tags)
    fail_unless_any(predictions)
    if opened.ranks.is_first:
        write_predictions(args.out / ANSWERS_NAME, predictions.candidates)
        facts = session.facts(args.data, decoding) | {"model": str(args.model), "task": args.task}
        write_facts(args.out / ANSWERS_NAME, facts)
        scores = benchmark.score(predictions.candidates)
        write_json(args.out / "scores.json", {**facts, **_result(benchmark, scores, predictions)})
        page = BenchmarkInput(
            args.task,
            RunFacts.of(args.task, facts),
            scores,
            benchmark.samples,
            predictions.candidates,
            predictions.failures,
            benchmark.published,
        )
        write_text(args.out / "report.html", render_benchmark_report(page))
        answered = len(predictions.candidates)
        shown = rounded(scores.values)
        said = f"{scores.text}{answered} of {len(asks)} questions answered: {args.out}\n{json.dumps(shown)}"
        tell(args, said, out=args.out, questions=len(asks), answered=answered, scores=shown)
    opened.ranks.leave()
    return 1 if predictions.failures else 0


def _result(benchmark: Benchmark, scores: Scores, predictions: Predictions) -> dict[str, Any]:
    """What scores.json says beside how the answers were made."""
    from dataclasses import asdict

    asked, answered = len(benchmark.samples), len(predictions.candidates)
    return {
        "questions": asked,
        "answered": answered,
        "coverage": answered / asked,
        "failures": predictions.failures,
        "scores": scores.values,
        "rows": [asdict(row) for row in scores.rows],
        "published": [asdict(other) for other in benchmark.published],
        "details": scores.details,
    }
