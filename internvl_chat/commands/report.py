"""Write one HTML file about a few runs: with references scores and differences, without them a gallery of clips.

    python -m internvl_chat report results --out gallery.html
    python -m internvl_chat report before=a after=b --references data.json --out report.html

A run is what eval_const.py, evaluate or answer wrote, or a file of captions by id. Clips are those of the data set that
the run's own run.json names, or of --tracks: records (a meta JSON or JSONL) or a dataset's root.

Without --references the file is a gallery: each clip's frames with its track, what the runs say, filters, a link to
each clip. With them it begins with what the comparison comes to and says how the runs were made; scores, differences
from the first run, plots, and a sheet of clips sorted by gain or loss follow. With --control FILE, which `control --out
FILE` wrote, it also says how captions follow the box; without runs, those of that file are compared: no box, and the
own one.
The file needs nothing else, neither a network nor a server.
"""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_chat.commands.options import (
    add_json,
    add_scoring_options,
    counted,
    file_to_write,
    positive_int,
    run_file,
    tell,
)

if TYPE_CHECKING:
    from internvl_chat.reports.html import RunFacts
    from internvl_chat.scoring.control_record import ControlRecord

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="*",
        type=run_file,
        metavar="RUN.json",
        help="predictions, the baseline first; NAME=FILE names a run",
    )
    add_scoring_options(parser, required=False)
    parser.add_argument("--out", type=file_to_write, required=True, help="HTML file to write")
    parser.add_argument("--control", type=Path, help="what `control --out` wrote")
    parser.add_argument("--open", action="store_true", help="show it in the browser, where there is one")
    parser.add_argument("--title", help="(default: what the page shows)")
    parser.add_argument(
        "--clips",
        type=positive_int,
        default=100,
        help="clips on the sheet: half gains and half losses, or the first ones (%(default)s)",
    )
    parser.add_argument("--num_frames", type=positive_int, help="frames of a clip (default: 4, in a gallery 8)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.files import write_text
    from internvl_chat.reports.html import RunFacts
    from internvl_chat.scoring.control_record import ControlRecord
    from internvl_chat.scoring.predictions import read_facts, read_predictions

    control = ControlRecord.read(args.control) if args.control else None
    predictions = {name: read_predictions(path) for name, path in args.runs}
    facts = {name: read_facts(path) for name, path in args.runs}
    if not args.runs:
        if control is None:
            raise UserError("nothing to report: give files of captions, such as what eval_const.py wrote, or --control")
        predictions = control.runs()
        facts = dict.fromkeys(predictions, dict(control.facts))
        if not predictions:
            raise UserError(f"{args.control}: has no captions with the own box or with none: give files of captions")
    elif len(predictions) < len(args.runs):
        raise UserError(f"runs need names of their own, got {', '.join(n for n, _ in args.runs)}: give NAME=FILE")
    source = args.tracks or _data_of(facts)
    rows = [RunFacts.of(name, said) for name, said in facts.items()]
    if args.references:
        html, faults = _compared(args, predictions, source, control, rows)
    else:
        html, faults = _gallery(args, predictions, source, rows)
    write_text(args.out, html)
    for video_id, reason in faults.items():
        sys.stderr.write(f"error: {video_id} is not shown: {reason}\n")
    size = len(html.encode())
    tell(
        args,
        f"{args.out}: {counted(len(predictions), 'run')}, {size / 2**20:.1f} MiB",
        out=args.out,
        runs=list(predictions),
        bytes=size,
    )
    # A text browser would take over the terminal.
    if args.open and (sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in _DISPLAYS)):
        webbrowser.open(args.out.resolve().as_uri())
    return 1 if faults else 0


def _data_of(facts: Mapping[str, Mapping[str, Any]]) -> Path | None:
    """The data set that the runs name, where it still lies there."""
    named = [Path(str(said["data"])) for said in facts.values() if "data" in said]
    return next((path for path in named if path.exists()), None)


def _gallery(
    args: argparse.Namespace, predictions: Mapping[str, Mapping[str, str]], source: Path | None, rows: list[RunFacts]
) -> tuple[str, Mapping[str, str]]:
    from internvl_chat.reports.gallery import GalleryInput, render_gallery
    from internvl_chat.tasks.intentvc.groups import known_clips

    ids = {i: None for said in predictions.values() for i in said}
    clips, known = known_clips(source, ids) if source else ({}, {})
    if not clips:
        sys.stderr.write(
            "warning: none of the clips is known, so that only captions are shown: --tracks names the records or the "
            "dataset's root\n"
        )
    gallery = render_gallery(
        GalleryInput(args.title or "Captions", predictions, clips, rows, known, args.clips, args.num_frames or 8)
    )
    return gallery.html, gallery.faults


def _compared(
    args: argparse.Namespace,
    predictions: Mapping[str, Mapping[str, str]],
    source: Path | None,
    control: ControlRecord | None,
    rows: list[RunFacts],
) -> tuple[str, Mapping[str, str]]:
    from internvl_chat.contracts import UserError
    from internvl_chat.data.records.record_questions import read_references
    from internvl_chat.reports.caption_report import ReportInput, render_report
    from internvl_chat.tasks.intentvc.assessment import assess
    from internvl_chat.tasks.intentvc.groups import known_clips, read_tracks

    references = read_references(args.references)
    shared = set(references).intersection(*predictions.values())
    if not shared:
        first = next(iter(next(iter(predictions.values()))))
        raise UserError(
            f"the runs share no id that has references, such as {first!r} and {next(iter(references))!r}: are they of "
            "the same data and split?"
        )
    predictions = {name: {i: text for i, text in said.items() if i in shared} for name, said in predictions.items()}
    scored = sorted(shared)
    clips = known_clips(source, scored)[0] if source else {}
    tracks = read_tracks(args.tracks, scored) if args.tracks else None
    settings = {"java": not args.no_java, "spice": args.spice, "resamples": args.resamples, "seed": args.seed}
    runs = {name: assess(said, references, tracks, **settings) for name, said in predictions.items()}
    if len(shared) < len(references):
        sys.stderr.write(f"warning: {len(shared)} of {len(references)} references have a caption in every run\n")
    report = render_report(
        ReportInput(
            args.title or ("Captions compared" if len(runs) > 1 else "Captions and their scores"),
            runs,
            predictions,
            references,
            tracks,
            clips,
            num_clips=args.clips,
            num_frames=args.num_frames or 4,
            resamples=args.resamples,
            seed=args.seed,
            control=control,
            facts=rows,
        )
    )
    return report.html, report.faults
