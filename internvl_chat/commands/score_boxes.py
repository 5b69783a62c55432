"""Score boxes in answers: Precision@1, average precision, precision, recall and F1; malformed answers are counted.

References: JSONL records whose gpt turns hold boxes, or RefCOCO's. Predictions: one {"id": ..., "answer": ...} a line
("answers": [...] where a record has several gpt turns), or records with conversations. A question that names a <ref>
counts for Precision@1, any other for detection, where boxes on a picture without objects are false positives.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from internvl_chat.commands.options import add_json, file_to_write, png_path, positive_int, save_png


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--predictions", type=Path, required=True, help="JSONL with the answers")
    add("--references", type=Path, required=True, help="JSONL with the truth")
    add_json(parser)
    add("--sheet", type=png_path, help="write a PNG: pictures with true and predicted boxes; needs --root")
    add("--html", type=file_to_write, help="write one HTML file: tables and, with --root, predictions over truth")
    add("--root", type=Path, help="the folder that the references' image paths are relative to")
    add("--sheet_images", type=positive_int, default=6, help="pictures on the sheet (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.scoring.box_records import read_answered
    from internvl_chat.scoring.box_scores import score_boxes

    if args.sheet and not args.root:
        raise UserError("--sheet needs --root, the folder of the pictures")
    answers = read_answered(args.references, args.predictions)
    report = score_boxes(answers)
    sys.stdout.write(json.dumps(report.as_dict()) + "\n" if args.json else report.as_text())
    sys.stdout.flush()
    if args.sheet:
        from internvl_chat.reports.box_sheet import prediction_sheet

        save_png(prediction_sheet(answers.answered[: args.sheet_images], args.root), args.sheet)
    if args.html:
        from internvl_chat.files import write_text
        from internvl_chat.reports.box_report import render_box_report

        write_text(args.html, render_box_report(answers, args.predictions.stem, args.root))
    return 0
