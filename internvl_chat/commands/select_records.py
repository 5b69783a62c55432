"""Keep the records whose frames, questions and tokens a model has room for, as T2Vid chose its own.

    python -m internvl_chat select-records texts/records.jsonl --for minicpm-v --tokenizer MODEL --out kept.jsonl

A record is left out if its video is no folder of frames, if it has not exactly one <video>, in its first turn, if its
question has --max_question_words words or more (T2Vid: 30 for LongQLoRA, 500 for LongAlpaca), if it has too many
frames, or if its text and frames are too many tokens. --for minicpm-v: at most 90 frames, and 8192 tokens with 96 a
frame; --for idefics3: 65, 10240 and 169. The other flags say otherwise, for any model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from internvl_chat.commands.options import add_json, file_to_write, positive_int, tell

MODELS = ("minicpm-v", "idefics3")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("records", type=Path, help="JSON list or JSONL of records that show folders of frames")
    add("--for", dest="model", choices=MODELS, default="minicpm-v", help="whose bounds (default: %(default)s)")
    add("--tokenizer", type=Path, required=True, help="folder of the model whose tokens are counted")
    add("--out", type=file_to_write, required=True, help="JSONL file to write")
    add("--root", type=Path, help="folder that paths are relative to (default: the records' folder)")
    add("--max_frames", type=positive_int, help="most frames of a record")
    add("--tokens_per_frame", type=positive_int, help="tokens that a frame counts")
    add("--max_tokens", type=positive_int, help="most tokens of a record, frames included")
    add("--max_question_words", type=positive_int, help="leave out questions of so many words or more (default: none)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from internvl_chat.contracts import UserError
    from internvl_chat.data.checking.selection import BOUNDS, judge_records, reasons
    from internvl_chat.data.prompts.tokenizer import read_tokenizer
    from internvl_chat.files import write_jsonl

    names = ("max_frames", "tokens_per_frame", "max_tokens", "max_question_words")
    bounds = replace(BOUNDS[args.model], **{name: value for name in names if (value := getattr(args, name))})
    tokenizer = read_tokenizer(args.tokenizer)
    root = args.root or args.records.parent
    judged = list(judge_records(args.records, root, bounds, lambda text: len(tokenizer(text).input_ids)))
    kept = [one.record for one in judged if not one.left_out]
    if not kept:
        raise UserError(f"{args.records}: no record of {len(judged)} is left: {dict(reasons(judged))}")
    write_jsonl(args.out, kept)
    left_out = dict(reasons(judged).most_common())
    lines = [f"{args.out}: {len(kept)} of {len(judged)} records"]
    lines += [f"left out: {number} {reason}" for reason, number in left_out.items()]
    tell(args, "\n".join(lines), out=args.out, records=len(kept), of=len(judged), left_out=left_out)
    return 0
