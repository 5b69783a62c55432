"""Score captions as the challenge does, with bootstrap intervals: BLEU-1 to 4, METEOR, CIDEr and ROUGE-L.

    python -m internvl_chat score --predictions results/answers.jsonl --references data.json
    python -m internvl_chat score --predictions result_public.json --references references.json

    python -m internvl_chat score NAME --data DATA --predictions answers.jsonl

Predictions are what eval_const.py, evaluate, answer, caption-videos or consensus wrote, or {id: caption}; references
are lists of captions by id, or the answers in records (a meta JSON, or JSONL). The last form scores answers to a task
of `evaluate`.

Also by category, by the object's size and presence (--tracks), and against another run on the same captions
(--baseline: paired bootstrap and approximate randomisation). --json prints everything.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_chat.choices import TASKS
from internvl_chat.commands.options import add_json, add_scoring_options, counted, rounded

if TYPE_CHECKING:
    from internvl_chat.scoring.significance import Difference
    from internvl_chat.tasks.intentvc.assessment import Assessment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", choices=TASKS, metavar="NAME", help=f"a task: {', '.join(TASKS)}")
    parser.add_argument("--data", type=Path, help="with NAME: the task's test set, as evaluate takes it")
    parser.add_argument("--predictions", type=Path, required=True, help="answers.jsonl, its folder, or {id: caption}")
    add_scoring_options(parser, required=False)
    parser.add_argument("--baseline", type=Path, help="another run's predictions to compare with")
    parser.add_argument("--allow_missing", action="store_true", help="score what has a caption, if some have none")
    parser.add_argument("--by_category", action="store_true", help="list the categories too; JSON always has them")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError

    if args.task:
        if not args.data:
            raise UserError(f"score {args.task} needs --data, the task's test set, as `evaluate` takes it")
        return _score_task(args)
    if not args.references:
        raise UserError(
            "score needs --references, the captions to score against: {id: [caption, ...]}, or records with answers, "
            "such as the meta JSON that was captioned; or the NAME of a task, and --data"
        )
    return _score_captions(args)


def _score_task(args: argparse.Namespace) -> int:
    from internvl_chat.tasks.benchmark import read_answers, task_named

    benchmark = task_named(args.task).read(args.data)
    answers = read_answers(args.predictions, [sample.id for sample in benchmark.samples])
    scores = benchmark.score(answers)
    if not args.json:
        sys.stdout.write(f"{scores.text}{len(answers)} of {len(benchmark.samples)} questions answered\n")
    sys.stdout.write(json.dumps(rounded(scores.values)) + "\n")
    return 0


def _score_captions(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from internvl_chat.contracts import UserError
    from internvl_chat.data.records.record_questions import read_references
    from internvl_chat.scoring.captions.caption_scores import score_captions
    from internvl_chat.scoring.predictions import read_predictions
    from internvl_chat.scoring.significance import compare
    from internvl_chat.tasks.intentvc.assessment import assess
    from internvl_chat.tasks.intentvc.groups import read_tracks

    predictions, references = read_predictions(args.predictions), read_references(args.references)
    missing = [i for i in references if i not in predictions]
    if len(missing) == len(references):
        raise UserError(
            f"{args.predictions} and {args.references} share no id, such as {next(iter(predictions))!r} and "
            f"{missing[0]!r}: are both of the same data and split?"
        )
    if missing and not args.allow_missing:
        raise UserError(
            f"{args.predictions}: has no caption for {len(missing)} of {len(references)} references, such as "
            f"{missing[0]}; --allow_missing scores the others alone"
        )
    baseline = read_predictions(args.baseline) if args.baseline else None
    tracks = read_tracks(args.tracks, [i for i in predictions if i in references]) if args.tracks else None
    java = not args.no_java
    result = assess(
        predictions,
        references,
        tracks,
        java=java,
        spice=args.spice,
        resamples=args.resamples,
        seed=args.seed,
    )
    differences = {}
    if baseline is not None:
        # Both on what they share: CIDEr weighs n-grams by all captions that are scored together.
        shared = [i for i in result.table.ids if i in baseline]
        if not shared:
            raise UserError(f"{args.predictions} and {args.baseline} have no scored id in common: nothing to compare")
        mine, theirs = (
            score_captions({i: said[i] for i in shared}, references, java=java, spice=args.spice)
            for said in (predictions, baseline)
        )
        differences = compare(mine, theirs, args.resamples, args.seed)
        if len(shared) < max(len(result.table.ids), sum(i in references for i in baseline)):
            sys.stderr.write(f"warning: {len(shared)} captions are in both runs; only those are compared\n")
    for ids, what in (
        (result.without_prediction, "references have no prediction"),
        (result.without_references, "predictions have no references"),
    ):
        if ids:
            sys.stderr.write(f"warning: {len(ids)} {what}, such as {ids[0]}; they are not scored\n")
    if args.json:
        compared = {name: asdict(difference) for name, difference in differences.items()}
        content = {**result.as_dict(), **({"difference_from_baseline": compared} if compared else {})}
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    else:
        sys.stdout.write(_as_text(result, differences, args.by_category))
    return 0


def _as_text(result: Assessment, differences: Mapping[str, Difference], by_category: bool) -> str:
    rows = [
        [name, f"{score:.4f}", f"{result.intervals[name].low:.4f} to {result.intervals[name].high:.4f}"]
        for name, score in result.scores.items()
    ]
    text = f"{counted(len(result.table.ids), 'caption')}\n\n" + _table(["", "score", "95 % interval"], rows)
    if differences:
        rows = [
            [name, f"{d.value:+.4f}", f"{d.interval.low:+.4f} to {d.interval.high:+.4f}", f"{d.p_value:.4f}"]
            for name, d in differences.items()
        ]
        text += "\n" + _table(["against the baseline", "difference", "95 % interval", "p"], rows)
    for kind, groups in result.groups.items():
        if kind != "category" or by_category:
            rows = [
                [name, str(group.captions), *(f"{v:.4f}" for v in group.scores.values())]
                for name, group in groups.items()
            ]
            text += "\n" + _table([f"by {kind}", "captions", *result.scores], rows)
    return text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns in line: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for first, *others in [head, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]) + "\n")
    return "".join(lines)
