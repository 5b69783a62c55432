"""Answer the questions of records, such as a detection set, for score-boxes, score or report to take.

Every gpt turn is answered anew, after what the record says before it, and so is a question at a record's end. The
answers, tags of boxes and all, are written as JSONL: {"id": ..., "answer": ...}, or "answers": [...] where a record has
several. Finished answers are kept beside it, and the same command goes on where a killed one stopped; under torchrun,
ranks share the work.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from internvl_chat.commands.options import (
    add_feeding_options,
    add_json,
    add_model_options,
    counted,
    file_to_write,
    positive_int,
    tell,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    add_feeding_options(parser)
    add = parser.add_argument
    add("--records", "--meta", type=Path, required=True, help="JSONL with the questions, or a meta JSON")
    add("--root", type=Path, help="the folder that its paths are relative to (default: the file's own)")
    add("--out", type=file_to_write, required=True, help="JSONL to write")
    add("--limit", type=positive_int, help="answer so many records, the first ones (default: all)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.inference.decoding import Decoding

    decoding = Decoding(max_new_tokens=args.max_new_tokens, temperature=args.temperature)
    from internvl_chat.files import write_jsonl
    from internvl_chat.inference.answers import answer_records, questions_of, records_to_answer
    from internvl_chat.inference.handle import ModelHandle
    from internvl_chat.inference.predict import BatchLimits, fail_unless_any
    from internvl_chat.inference.ranks import Ranks
    from internvl_chat.inference.session import PredictionSession
    from internvl_chat.scoring.predictions import write_facts

    samples = records_to_answer(args.records, args.root, args.limit)
    opened = ModelHandle.from_arguments(args, Ranks.join(args.dtype))
    asks = [ask for sample in samples for ask in questions_of(sample)]
    limits = BatchLimits(args.batch_tokens, args.num_workers)
    progress = args.out.with_suffix(".progress")
    session = PredictionSession.alone(opened, args.num_frames)
    predictions = session.predict(asks, decoding, limits, progress, keep_tags=True)
    fail_unless_any(predictions)
    if opened.ranks.is_first:
        write_facts(args.out, session.facts(args.records, decoding))
        written = write_jsonl(args.out, answer_records(samples, predictions.captions))
        answers = len(predictions.candidates)
        tell(
            args,
            f"{args.out}: {counted(written, 'record')}, {counted(answers, 'answer')}",
            out=args.out,
            records=written,
            answers=answers,
        )
    opened.ranks.leave()
    return 1 if predictions.failures else 0
