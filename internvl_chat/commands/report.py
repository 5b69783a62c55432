"""Write one HTML file about a few runs: scores and differences, plots, and a sheet of clips sorted by gain or loss.

    python -m internvl_chat report before=a.json after=b.json --references references.json --out report.html

The first run is the baseline. With --tracks each clip shows its box track, and frames too where that is the dataset's
root and holds the videos. With --control FILE, which `control --out FILE` wrote, the report also says how captions
follow the box; without runs, those of that file are compared: no box, and the own one. The report needs nothing else,
neither a network nor a server.
"""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from pathlib import Path

from internvl_chat.commands.options import add_scoring_options, file_to_write, positive_int, run_file

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="*",
        type=run_file,
        metavar="RUN.json",
        help="predictions, the baseline first; NAME=FILE names a run",
    )
    add_scoring_options(parser)
    parser.add_argument("--out", type=file_to_write, required=True, help="HTML file to write")
    parser.add_argument("--control", type=Path, help="what `control --out` wrote")
    parser.add_argument("--open", action="store_true", help="show it in the browser, where there is one")
    parser.add_argument("--title", default="Captions compared", help="(default: %(default)s)")
    parser.add_argument(
        "--clips", type=positive_int, default=100, help="clips on the sheet, half gains and half losses (%(default)s)"
    )
    parser.add_argument("--num_frames", type=positive_int, default=4, help="frames of a clip (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.data.records.annotations import video_path_of
    from internvl_chat.data.records.record_questions import read_references
    from internvl_chat.files import write_text
    from internvl_chat.reports.caption_report import ReportInput, render_report
    from internvl_chat.scoring.control_record import ControlRecord
    from internvl_chat.scoring.predictions import read_predictions
    from internvl_chat.tasks.intentvc.assessment import assess
    from internvl_chat.tasks.intentvc.groups import read_tracks

    control = ControlRecord.read(args.control) if args.control else None
    predictions = {name: read_predictions(path) for name, path in args.runs}
    if not args.runs:
        if control is None:
            raise UserError("nothing to report: give files of captions, or --control")
        predictions = control.runs()
        if not predictions:
            raise UserError(f"{args.control}: has no captions with the own box or with none: give files of captions")
    elif len(predictions) < len(args.runs):
        raise UserError(f"runs need names of their own, got {', '.join(n for n, _ in args.runs)}: give NAME=FILE")
    references = read_references(args.references)
    shared = set(references).intersection(*predictions.values())
    if not shared:
        raise UserError("the runs share no id that has references: are they of the same split?")
    predictions = {name: {i: text for i, text in said.items() if i in shared} for name, said in predictions.items()}
    scored = sorted(shared)
    tracks = read_tracks(args.tracks, scored) if args.tracks else None
    videos = {i: video_path_of(args.tracks, i) for i in scored} if args.tracks and args.tracks.is_dir() else {}
    runs = {
        name: assess(
            said,
            references,
            tracks,
            java=not args.no_java,
            spice=args.spice,
            resamples=args.resamples,
            seed=args.seed,
        )
        for name, said in predictions.items()
    }
    if len(shared) < len(references):
        sys.stderr.write(f"warning: {len(shared)} of {len(references)} references have a caption in every run\n")
    report = render_report(
        ReportInput(
            args.title,
            runs,
            predictions,
            references,
            tracks,
            {i: path for i, path in videos.items() if path.is_file()},
            num_clips=args.clips,
            num_frames=args.num_frames,
            resamples=args.resamples,
            seed=args.seed,
            control=control,
        )
    )
    write_text(args.out, report.html)
    for video_id, reason in report.faults.items():
        sys.stderr.write(f"error: {video_id} is not shown: {reason}\n")
    sys.stdout.write(f"{args.out}: {len(runs)} runs, {len(report.html.encode()) / 2**20:.1f} MiB\n")
    # A text browser would take over the terminal.
    if args.open and (sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in _DISPLAYS)):
        webbrowser.open(args.out.resolve().as_uri())
    return 1 if report.faults else 0
