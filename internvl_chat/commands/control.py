"""Measure whether the caption follows the box: with another object's box, none, or one made worse.

Every clip is captioned with its own track and once more for each probe and level:

    swap     the other object's track, for the clips that show two: does the caption become the other's?
    null     no box at all
    jitter   each frame's box moved by up to 0.25, 0.5, 1 or 2 times its own size
    shrink   0.25, 0.5, 0.75 or 0.9 of its width and height taken away
    absent   no box in 0.25, 0.5 or 0.75 of the frames

Clips are the test videos of the challenge, or whatever the records of the meta JSON ask. Records of the same video with
different tracks are each other's other object by themselves, and so are two ids with the same video file.
--other_target names pairs otherwise: {"dog-1": "dog-2", "dog-2": "dog-1"}, each an id and the id of the same clip with
the other object's box.

A line a probe and level says how many captions changed, how many are word for word a reference of the clip's own and of
its other target (the truth, where the references are all that can be said), and how the captions score against the
references of both. The last line printed is JSON with the shares of exact captions, the only one with --json. With
--out FILE, finished captions are kept in FILE's folder, and the same command goes on where a killed one stopped;
`report --control FILE` shows it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from internvl_chat.commands.options import (
    add_json,
    add_prediction_options,
    add_sheet_options,
    add_split,
    file_to_write,
    save_png,
    tell,
)

PROBES = ("swap", "null", "jitter", "shrink", "absent")
_PAIRS = "other_target.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_prediction_options(parser)
    add = parser.add_argument
    add("--probes", nargs="+", choices=PROBES, default=["swap"], help="what to measure (default: swap)")
    add_split(parser)
    add("--ids", type=Path, help="use these ids instead (a JSON list, or a captions file)")
    add("--other_target", type=Path, help="pairs (default: ROOT/other_target.json if there, or found as said above)")
    add("--references", type=Path, help="captions or records (default: ROOT/references_test.json, or the records')")
    add_sheet_options(parser)
    add("--out", type=file_to_write, help="write rates, curves and captions to this JSON file")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.inference.decoding import Decoding

    decoding = Decoding.from_arguments(args)
    from internvl_chat.data.records.intentvc import REFERENCES_NAME
    from internvl_chat.data.records.record_questions import read_references
    from internvl_chat.files import write_json
    from internvl_chat.inference.predict import BatchLimits, fail_unless_any
    from internvl_chat.inference.ranks import Ranks
    from internvl_chat.inference.session import open_session
    from internvl_chat.scoring.captions.caption_scores import score_captions
    from internvl_chat.tasks.control.pairs import pairs_of, read_other_targets
    from internvl_chat.tasks.control.probes import METRIC, ControlResult, check_targets, probe_asks, probes_of
    from internvl_chat.tasks.intentvc.asked import clips_to_ask

    session = open_session(args, Ranks.join(args.dtype))
    asked_clips = clips_to_ask(session, args.ids, args.split)
    ids, asks = asked_clips.ids, asked_clips.asks
    others, truth = args.other_target or session.root / _PAIRS, args.references or session.root / REFERENCES_NAME
    named = read_other_targets(others) if args.other_target or others.is_file() else {}
    # The root's own file is about the challenge's ids; records have theirs.
    other_target = named if args.other_target or named.keys() & ids else pairs_of([ask.samples[0] for ask in asks])
    known = read_references(truth) if args.references or truth.is_file() else {}
    references = {**asked_clips.references, **known}
    check_targets(ids, other_target, references, "swap" in args.probes)

    pairs = {i: other_target[i] for i in ids if i in other_target}
    other_asks = dict(zip(pairs, session.asks(list(pairs.values())), strict=True))
    asked = probe_asks(asks, probes_of(args.probes), other_asks)
    # Clip by clip, since the asks of a clip share its header.
    every_ask = [ask for of_probe in asked.values() for ask in of_probe]
    every_ask.sort(key=lambda ask: str(ask.samples[0].video_path))
    limits = BatchLimits(args.batch_tokens, args.num_workers)
    with tempfile.TemporaryDirectory() as scratch:
        progress = args.out.with_suffix(".progress") if args.out else Path(scratch) / "progress"
        predictions = session.predict(every_ask, decoding, limits, progress)
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
        {ask.id: ask.samples[0].object_name for ask in (*asks, *other_asks.values())},
    )
    if session.ranks.is_first:
        if args.out:
            write_json(args.out, {**result.to_json(), "run": session.facts(args.meta, decoding)})
        if args.sheet:
            from internvl_chat.tasks.control.contact_sheet import control_sheet

            save_png(control_sheet(result, asked, session.views[0], args.sheet_clips), args.sheet)
        sheet = f"contact sheet: {args.sheet}\n" if args.sheet else ""
        tell(args, f"{sheet}{result.table()}{json.dumps(result.rates())}", **result.rates())
    session.ranks.leave()
    return 1 if predictions.failures else 0
