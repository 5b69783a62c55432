"""Measure whether the caption follows the box, on clips whose second object is known.

The dataset's root holds other_target.json (id -> id of the same clip with the other object's box) and
references_test.json. Every test clip is captioned with its own box and with the other object's; the last line printed
is JSON with the shares of exact captions.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from internvl_chat.commands.options import add_prediction_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_prediction_options(parser)
    parser.add_argument("--ids", type=Path, help="ids to use (default: public and private test ids)")
    parser.add_argument("--other_target", type=Path, help="(default: ROOT/other_target.json)")
    parser.add_argument("--references", type=Path, help="(default: ROOT/references_test.json)")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet PNG: clips, boxes and both captions")
    parser.add_argument("--sheet_clips", type=int, default=4, help="clips on the sheet (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write rates and captions to this JSON file")


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from internvl_chat.data.annotations import read_captions, read_json, write_json
    from internvl_chat.evaluation.control import measure_control
    from internvl_chat.evaluation.predict import GenerationSettings, generate_captions, question_sample
    from internvl_chat.evaluation.session import open_session
    from internvl_chat.evaluation.submission import SPLITS, ids_of_split, read_ids

    session = open_session(args)
    root = session.entry.root
    ids = read_ids(args.ids) if args.ids else [i for split in SPLITS for i in ids_of_split(root, split)]
    samples = [question_sample(session.entry, video_id, session.ask) for video_id in ids]
    settings = GenerationSettings.from_arguments(args)
    result = measure_control(
        samples,
        read_json(args.other_target or root / "other_target.json"),
        read_captions(args.references or root / "references_test.json"),
        lambda asked: tqdm(
            generate_captions(session.model, session.tokenizer, session.encoder, asked, settings),
            total=len(asked),
            unit="caption",
            disable=None,
        ),
    )
    if args.sheet:
        from internvl_chat.evaluation.sheet import control_sheet

        args.sheet.parent.mkdir(parents=True, exist_ok=True)
        control_sheet(result, samples, args.num_frames, args.sheet_clips).save(args.sheet)
        sys.stdout.write(f"contact sheet: {args.sheet}\n")
    rates = result.rates()
    if args.out:
        write_json(args.out, {**rates, "right": result.right, "swapped": result.swapped})
    sys.stdout.write(json.dumps(rates) + "\n")
    return 0
