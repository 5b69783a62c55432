"""Write this project's annotation from another project's data.

    python -m internvl_chat convert-data --from llamafactory data.json --out lines.jsonl --meta_out meta.json
    python -m internvl_chat convert-data --from lasot /data/LaSOT --out lasot.jsonl --meta_out lasot.json

--from llamafactory and ms-swift read message lists (JSON or JSONL), coco a detection file, refcoco phrases with a
region each ("sent", "bbox" x1 y1 x2 y2 in pixels), lasot and got10k folders of tracked videos. Paths are written
relative to --root, which no file may leave. `annotate` reads the challenge's own train.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from internvl_chat.choices import PROMPT_FORMS
from internvl_chat.commands.options import file_to_write

FORMATS = ("llamafactory", "ms-swift", "coco", "refcoco", "lasot", "got10k")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, help="the file; for lasot and got10k the folder")
    add("--from", dest="format", choices=FORMATS, required=True, help="what the source is")
    add("--out", type=file_to_write, required=True, help="JSONL file to write")
    add("--meta_out", type=file_to_write, help="also write a meta JSON here")
    add("--root", type=Path, help="folder that paths are relative to (default: the source's folder)")
    add("--captions", type=Path, help="lasot, got10k: {'captions': {sequence: [caption, ...]}}, used before their own")
    add("--prompt_form", choices=PROMPT_FORMS, default="coordinates", help="lasot, got10k (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.data.records.reader import RecordReader
    from internvl_chat.files import write_json, write_jsonl

    root = args.root or (args.source if args.format in ("lasot", "got10k") else args.source.parent)
    if not root.is_dir():
        raise UserError(f"{root}: is no folder; give the folder that paths are relative to as --root")
    reader = RecordReader(root)

    def readable() -> Iterator[dict[str, Any]]:
        for record in _records(args, root):
            reader.read(record, f"{args.source}: record {record['id']!r}")
            yield record

    records = readable()
    first = next(records, None)
    if first is None:
        raise UserError(f"{args.source}: holds no records")
    count = write_jsonl(args.out, chain([first], records))
    if args.meta_out:
        entry = {"root": str(root), "annotation": str(args.out), "data_augment": False, "repeat_time": 1}
        write_json(args.meta_out, {args.out.stem: {**entry, "length": count}})
    sys.stdout.write(f"{args.out}: {count} records\n")
    return 0


def _records(args: argparse.Namespace, root: Path) -> Iterator[dict[str, Any]]:
    from internvl_chat.data.converters import chats, detection, tracking
    from internvl_chat.data.records.annotations import read_captions

    if args.format == "llamafactory":
        return chats.llamafactory_records(args.source, root)
    if args.format == "ms-swift":
        return chats.swift_records(args.source, root)
    if args.format == "coco":
        return detection.coco_records(args.source, root)
    if args.format == "refcoco":
        return detection.refcoco_records(args.source, root)
    question = tracking.Question(PROMPT_FORMS[args.prompt_form], read_captions(args.captions) if args.captions else {})
    read_folders = tracking.lasot_records if args.format == "lasot" else tracking.got10k_records
    return read_folders(args.source, root, question)
