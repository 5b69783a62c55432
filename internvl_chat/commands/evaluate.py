"""Ask a model the questions of a task, and score its answers: one command from a checkpoint to a table.

OUT gets answers.jsonl ({"id": ..., "answer": ..., and "candidates" where there are several}) and scores.json, which
says what was asked of which model and how. Finished answers are kept in OUT/progress: the same command goes on where a
killed one stopped; under torchrun, ranks share the work. `score NAME` scores the answers again, or anybody's.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from internvl_chat.choices import TASKS
from internvl_chat.commands.options import add_feeding_options, add_model_options, add_search_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=TASKS, metavar="NAME", help=f"the task: {', '.join(TASKS)}")
    add_model_options(parser)
    add_search_options(parser)
    add_feeding_options(parser)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="the test set: a folder, a meta JSON, or a file of records")
    add("--out", type=Path, required=True, help="folder for answers and scores")


def run(args: argparse.Namespace) -> int:
    from internvl_chat.inference.decoding import Decoding

    decoding = Decoding.from_arguments(args)
    from internvl_chat.files import write_json
    from internvl_chat.inference.answers import write_answers
    from internvl_chat.inference.handle import open_model
    from internvl_chat.inference.predict import BatchLimits, fail_unless_any
    from internvl_chat.inference.ranks import Ranks
    from internvl_chat.inference.requests import Ask
    from internvl_chat.scoring.predictions import ANSWERS_NAME, run_facts, write_facts, write_predictions
    from internvl_chat.tasks.benchmark import task_named

    benchmark = task_named(args.task).read(args.data)
    opened = open_model(
        args.model,
        base_path=args.base,
        conv_style=args.conv_style,
        max_dynamic_patch=args.max_dynamic_patch,
        video_backend=args.video_backend,
        ranks=Ranks.join(),
    )
    asks = [Ask(sample.id, (sample,)) for sample in benchmark.samples]
    limits = BatchLimits(args.batch_tokens, args.num_workers)
    predictions = write_answers(
        opened, asks, decoding, args.num_frames, limits, args.out / "progress", benchmark.keep_tags
    )
    fail_unless_any(predictions)
    if opened.ranks.is_first:
        write_predictions(args.out / ANSWERS_NAME, predictions.candidates)
        scores = benchmark.score(predictions.candidates)
        frames = args.num_frames or opened.encoder.config.num_frames
        facts = run_facts(str(args.model), str(args.data), frames, vars(decoding)) | {"task": args.task}
        write_facts(args.out / ANSWERS_NAME, facts)
        facts |= {
            "questions": len(asks),
            "answered": len(predictions.candidates),
            "failures": predictions.failures,
        }
        write_json(args.out / "scores.json", {**facts, "scores": scores.values, "details": scores.details})
        sys.stdout.write(f"{scores.text}{len(predictions.candidates)} of {len(asks)} questions answered: {args.out}\n")
        sys.stdout.write(json.dumps(scores.values) + "\n")
    opened.ranks.leave()
    return 1 if predictions.failures else 0
