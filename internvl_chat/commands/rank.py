"""Rank runs as the challenge does: 3, 2 and 1 points for the three best in each metric, ties by CIDEr, METEOR, BLEU-4.

    python -m internvl_chat rank mine.json theirs.json --references references.json
    python -m internvl_chat rank mine=scores_a.json theirs=scores_b.json

A run is a file of predictions, or of scores: what `score --json` printed, the scores.json of eval_const.py, or {metric:
score}. Predictions that hold public and private ids are scored part by part, and the mean of both counts. All runs must
be scored on the same ids.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from internvl_chat.commands.options import add_java_option, add_json, run_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", type=run_file, metavar="RUN.json", help="predictions or scores; NAME=FILE names a run"
    )
    parser.add_argument("--references", type=Path, help="for predictions: captions by id, or records with answers")
    add_java_option(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from internvl_chat.contracts import UserError
    from internvl_chat.tasks.intentvc.ranking import rank_runs

    names = [name for name, _ in args.runs]
    if len(set(names)) < len(names):
        raise UserError(f"runs need names of their own, got {', '.join(names)}: give NAME=FILE")
    standings = rank_runs(_final_scores(dict(args.runs), args))
    if args.json:
        sys.stdout.write(json.dumps([asdict(standing) for standing in standings], indent=2) + "\n")
        return 0
    for s in standings:
        shown = "  ".join(f"{name} {s.scores[name]:.4f} ({points})" for name, points in s.points_by_metric.items())
        sys.stdout.write(f"{s.place}. {s.run}: {s.points} points  {shown}\n")
    return 0


def _final_scores(runs: Mapping[str, Path], args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Each run's final scores.

    Raises:
        UserError: a file is neither, or the runs were scored on different captions: an easy part would win.
    """
    from internvl_chat.contracts import UserError
    from internvl_chat.data.records.record_questions import read_references
    from internvl_chat.files import read_json
    from internvl_chat.scoring.predictions import read_predictions
    from internvl_chat.tasks.intentvc.assessment import scores_of_parts
    from internvl_chat.tasks.intentvc.ranking import final_scores

    references = read_references(args.references) if args.references else {}
    scores: dict[str, dict[str, float]] = {}
    predictions: dict[str, dict[str, str]] = {}
    counts: dict[str, int] = {}
    for name, path in runs.items():
        content: Any = read_json(path) if path.suffix == ".json" else None
        given = content.get("scores", content) if isinstance(content, dict) else None
        if isinstance(given, dict) and given and all(isinstance(value, (int, float)) for value in given.values()):
            scores[name] = {str(metric): float(value) for metric, value in given.items()}
            if isinstance(content.get("captions"), int):
                counts[name] = content["captions"]
            continue
        if not args.references:
            raise UserError(
                f"{path}: holds predictions, so --references is needed: captions by id, or records with answers"
            )
        predictions[name] = {i: text for i, text in read_predictions(path).items() if i in references}
        counts[name] = len(predictions[name])
    id_sets = {frozenset(said) for said in predictions.values()}
    if len(id_sets) > 1 or len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UserError(f"the runs are scored on different captions ({told}): expected the same ids in all of them")
    for name, said in predictions.items():
        if not said:
            raise UserError(f"{runs[name]}: no id has references in {args.references}: are both of the same data?")
        scores[name] = final_scores(scores_of_parts(said, references, java=not args.no_java))
    return {name: scores[name] for name in runs}
