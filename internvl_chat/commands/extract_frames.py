"""Write videos as folders of numbered pictures, one a second, and records that show the folders.

    python -m internvl_chat extract-frames /data/videos --out /data/frames --records video-chatgpt.jsonl

DIR gets a folder of frame_0001.png ... a video, named as the video is below VIDEOS. With --records only the videos that
they show are read, and DIR/records.jsonl and meta.json show the folders. The frames are those nearest to the middles of
the seconds, which training and prediction show of the video itself with --sampling_method fps1. No ffmpeg program is
needed; a killed command goes on where it stopped. A video that cannot be read is named, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from internvl_chat.commands.options import add_json, folder_to_write, positive_int, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("videos", type=Path, metavar="VIDEOS", help="folder of the videos, looked through to the bottom")
    add(
        "--out",
        type=folder_to_write,
        required=True,
        metavar="DIR",
        help="folder for the frames: new, or one to go on with",
    )
    add("--rate", type=float, default=1.0, help="frames a second (default: %(default)s)")
    add("--records", type=Path, help="records whose videos lie under VIDEOS")
    add("--workers", type=positive_int, default=os.cpu_count(), help="processes (default: one a core)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.data.records import frame_folders
    from internvl_chat.data.records.meta_files import write_meta
    from internvl_chat.files import begin_folder, write_jsonl

    if not 0 < args.rate <= 1000:
        raise UserError(f"--rate {args.rate}: expected more than 0 frames a second, at most 1000")
    shown = frame_folders.videos_in_records(args.records, args.videos) if args.records else {}
    videos = sorted(set(shown.values())) if shown else frame_folders.find_videos(args.videos)
    begin_folder(args.out, {"videos": str(args.videos.resolve()), "rate": args.rate})
    folders = []
    for folder in frame_folders.extract_frames(videos, args.videos, args.out, args.rate, args.workers):
        folders.append(folder)
        if folder.fault:
            sys.stderr.write(f"{folder.fault}\n")
    lost = [folder.video for folder in folders if folder.fault]
    pictures = sum(folder.num_pictures for folder in folders)
    were_there = sum(folder.was_there for folder in folders)
    read = len(folders) - len(lost)
    lines = [f"{args.out}: {read} videos, {pictures} frames; {were_there} were there, {len(lost)} cannot be read"]
    if args.records:
        annotation = args.out / "records.jsonl"
        records = frame_folders.folder_records(args.records, args.videos, shown, lost)
        count = write_jsonl(annotation, records)
        write_meta(args.out / "meta.json", args.records.stem, args.out, annotation, length=count)
        lines.append(f"{annotation}: {count} records")
    tell(
        args, "\n".join(lines), out=args.out, videos=read, frames=pictures, were_there=were_there, unreadable=len(lost)
    )
    return 1 if lost else 0
