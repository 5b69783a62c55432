"""Build the JSONL annotation that training reads from the challenge's train.json.

One line a caption. --prompt_form chooses the question: coordinates (IntentVCNet's), red_box, red_box_coordinates, or
text_only. With --meta_out the meta JSON that points at the annotation is written too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from internvl_chat.choices import PROMPT_FORMS
from internvl_chat.commands.options import add_json, counted, file_to_write, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--captions", type=Path, required=True, help="train.json: {'captions': {id: [caption, ...]}}")
    parser.add_argument("--out", type=file_to_write, required=True, help="JSONL file to write")
    parser.add_argument("--prompt_form", choices=PROMPT_FORMS, default="coordinates", help="(default: %(default)s)")
    parser.add_argument(
        "--object_name", action="append", default=[], metavar="CATEGORY=NAME", help="how the prompt calls a category"
    )
    parser.add_argument("--meta_out", type=file_to_write, help="also write a meta JSON here; needs --root")
    parser.add_argument("--root", type=Path, help="the videos' root, for --meta_out")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.data.records.annotations import caption_records, read_captions
    from internvl_chat.data.records.intentvc import is_video_id
    from internvl_chat.data.records.meta_files import write_meta
    from internvl_chat.files import write_jsonl

    if bool(args.meta_out) != bool(args.root):
        raise UserError("--meta_out and --root go together")
    pairs = [text.partition("=") for text in args.object_name]
    if not all(category and name for category, _, name in pairs):
        raise UserError("--object_name: expected CATEGORY=NAME")
    names = {category: name for category, _, name in pairs}
    captions = read_captions(args.captions)
    for video_id, texts in captions.items():
        if not is_video_id(video_id):
            raise UserError(
                f"{args.captions}: {video_id!r}: expected CATEGORY-NUMBER, as in dog-1, of a video "
                "ROOT/dog/dog-1/dog-1.mp4; videos that lie and are called otherwise become records by 'convert-data'"
            )
        if not all(text.strip() for text in texts):
            raise UserError(f"{args.captions}: {video_id!r}: a caption is empty: write it, or leave it out")
    records = caption_records(captions, PROMPT_FORMS[args.prompt_form], names)
    count = write_jsonl(args.out, records)
    if args.meta_out:
        named = {"object_names": names} if names else {}
        settings = {"data_augment": False, "repeat_time": 1, "length": count, **named}
        write_meta(args.meta_out, "captions", args.root, args.out, **settings)
    tell(args, f"{args.out}: {counted(count, 'caption')}", out=args.out, captions=count)
    return 0
