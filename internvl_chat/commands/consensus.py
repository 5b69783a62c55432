"""Choose one of each video's candidate captions: the one that the others agree with most.

    python -m internvl_chat consensus --candidates candidates.json --out chosen.json

Minimum Bayes risk: every other candidate counts as the truth once, and the candidate whose mean CIDEr, BLEU-4 or mean
of both against them is highest is chosen. Needs no Java.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from internvl_chat.choices import CONSENSUS_UTILITIES
from internvl_chat.commands.options import add_json, counted, file_to_write, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--candidates", type=Path, required=True, help="{id: [caption, ...]}, or answers.jsonl with candidates"
    )
    parser.add_argument(
        "--out",
        type=file_to_write,
        required=True,
        help="write {'version', 'captions': {id: caption}} here, or JSONL if it ends so",
    )
    parser.add_argument("--metric", choices=CONSENSUS_UTILITIES, default="CIDEr", help="utility (default: %(default)s)")
    parser.add_argument("--version", default="consensus", help="the output's version text (default: %(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.files import write_json
    from internvl_chat.scoring.consensus import choose_by_consensus
    from internvl_chat.scoring.predictions import read_candidates, write_predictions

    candidates = read_candidates(args.candidates)
    choices = choose_by_consensus(candidates, args.metric)
    captions = {i: choice.caption for i, choice in choices.items()}
    if args.out.suffix == ".jsonl":
        write_predictions(args.out, {i: [text] for i, text in captions.items()})
    else:
        write_json(args.out, {"version": args.version, "captions": captions})
    chosen = sum(choice.utilities[choice.index] for choice in choices.values()) / len(choices)
    any_one = sum(choice.utilities.mean() for choice in choices.values()) / len(choices)
    gain = f"expected {args.metric} {chosen:.4f}, a random candidate's {any_one:.4f}"
    tell(
        args, f"{args.out}: {counted(len(choices), 'caption')}; {gain}", out=args.out, captions=len(choices), gain=gain
    )
    return 0
