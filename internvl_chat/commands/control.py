"""Measure whether the caption follows the box: with another object's box, none, or one made worse.

Every clip is captioned with its own track and once more for each probe and level:

    swap     the other object's track, for the clips that other_target.json (id -> id of the same clip with the other
             object's box) names: does the caption become the other's?
    null     no box at all
    jitter   each frame's box moved by up to 0.25, 0.5, 1 or 2 times its own size
    shrink   0.25, 0.5, 0.75 or 0.9 of its width and height taken away
    absent   no box in 0.25, 0.5 or 0.75 of the frames

A line a probe and level says how many captions changed, how many are word for word a reference of the clip's own and of
its other target (the truth, where the references are all that can be said), and how the captions score against the
references of both. The last line printed is JSON with the shares of exact captions. With --out FILE, finished captions
are kept in FILE's folder, and the same command goes on where a killed one stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from internvl_chat.commands.options import add_prediction_options, file_to_write, png_path, positive_int, save_png

PROBES = ("swap", "null", "jitter", "shrink", "absent")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_prediction_options(parser)
    add = parser.add_argument
    add("--probes", nargs="+", choices=PROBES, default=["swap"], help="what to measure (default: swap)")
    add("--ids", type=Path, help="ids to use (default: public and private test ids)")
    add("--other_target", type=Path, help="(default: ROOT/other_target.json, if there)")
    add("--references", type=Path, help="(default: ROOT/references_test.json, if there)")
    add("--sheet", type=png_path, help="write a contact sheet PNG: clips, boxes and both captions; needs swap")
    add("--sheet_clips", type=positive_int, default=4, help="clips on the sheet (default: %(default)s)")
    add("--out", type=file_to_write, help="write rates, curves and captions to this JSON file")


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.inference.decoding import Decoding

    decoding = Decoding.from_arguments(args)
    if args.sheet and "swap" not in args.probes:
        raise UserError("--sheet shows each clip with both objects' boxes: add swap to --probes")
    from internvl_chat.data.records.annotations import read_captions
    from internvl_chat.files import write_json
    from internvl_chat.inference.predict import BatchLimits, fail_unless_any
    from internvl_chat.inference.ranks import Ranks
    from internvl_chat.inference.session import open_session
    from internvl_chat.scoring.caption_scores import score_captions
    from internvl_chat.tasks.control.probes import (
        METRIC,
        ControlResult,
        check_targets,
        probe_asks,
        probes_of,
        read_other_targets,
    )
    from internvl_chat.tasks.intentvc.submission import SPLITS, ids_of_split, read_ids

    session = open_session(args, Ranks.join())
    root = session.entry.root
    ids = read_ids(args.ids) if args.ids else [i for split in SPLITS for i in ids_of_split(root, split)]
    others, truth = args.other_target or root / "other_target.json", args.references or root / "references_test.json"
    other_target = read_other_targets(others) if args.other_target or others.is_file() else {}
    references = read_captions(truth) if args.references or truth.is_file() else {}
    check_targets(ids, other_target, references, "swap" in args.probes)

    asks = [session.ask(video_id) for video_id in ids]
    other_asks = {video_id: session.ask(other_target[video_id]) for video_id in ids if video_id in other_target}
    with tempfile.TemporaryDirectory() as scratch:
        asked = probe_asks(asks, probes_of(args.probes), other_asks, Path(scratch) / "tracks")
        progress = args.out.with_suffix(".progress") if args.out else Path(scratch) / "progress"
        # Clip by clip, since the asks of a clip share its header.
        every_ask = [ask for of_probe in asked.values() for ask in of_probe]
        every_ask.sort(key=lambda ask: str(ask.samples[0].video_path))
        predictions = session.predict(every_ask, decoding, BatchLimits(args.batch_tokens, args.num_workers), progress)
    fail_unless_any(predictions)
    captions = predictions.captions
    result = ControlResult(
        {
            probe: {video_id: captions[i] for video_id in ids if (i := probe.ask_id(video_id)) in captions}
            for probe in asked
        },
        other_target,
        references,
        METRIC,
        lambda texts, truth: score_captions(texts, truth, java=False).corpus()[METRIC],
    )
    if session.ranks.is_first:
        if args.out:
            write_json(args.out, result.to_json())
        if args.sheet and result.swapped:
            from internvl_chat.tasks.control.contact_sheet import control_sheet

            samples = {ask.id: ask.samples[0] for ask in [*asks, *other_asks.values()]}
            save_png(control_sheet(result, samples, session.views[0].num_frames, args.sheet_clips), args.sheet)
            sys.stdout.write(f"contact sheet: {args.sheet}\n")
        sys.stdout.write(result.table() + json.dumps(result.rates()) + "\n")
    session.ranks.leave()
    return 1 if predictions.failures else 0
