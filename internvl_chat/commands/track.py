"""Follow objects through a video from a box each, and write their tracks.

    python -m internvl_chat track clip.mp4 --box 44,30,80,60 --out object_bboxes.txt
    python -m internvl_chat track clip.mp4 --box dog@0:44,30,80,60 --box dog@90:60,30,80,60 --box cat@12:9,9,40,30 \\
        --out tracks.json --picture tracks.png
    python -m internvl_chat track --records boxes.jsonl --root /data --out tracked.jsonl --meta_out tracked.json

A box is x,y,w,h in pixels on a frame, from 0; objects are followed to both ends of the video, all in one pass a
direction. A second box of the same object corrects it from that frame on; "NAME@FRAME:absent" says that it is not to be
seen until its next box. Where the tracker loses an object it is absent; the confidence of every frame is kept beside a
.txt and inside a .json. CSRT and MIL need requirements/track.txt and no weights; a folder is a SAM 2, SAM 3 or
EdgeTAM video model of transformers.

--records completes the tracks of a file of records and can be killed: the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_chat.commands.options import (
    add_json,
    add_video_backend,
    count,
    counted,
    file_to_write,
    png_path,
    positive_int,
    save_png,
    tell,
)

if TYPE_CHECKING:
    from internvl_chat.contracts import TrackRows
    from internvl_chat.trackers.following import FollowedObjects, GivenObject
    from internvl_chat.trackers.frames import Footage
    from internvl_chat.trackers.lists import TrackerSettings

_BOX = re.compile(r"(?:(?P<name>[^@:]*)(?:@(?P<frame>[0-9]{1,9}))?:)?(?P<box>absent|[^:]+)")


@dataclass(frozen=True)
class BoxFlag:
    """One `--box`: an object's name, the frame where it says, and x y w h in pixels; None for an absent object."""

    name: str
    frame: int | None
    box_px: tuple[float, ...] | None


def box_flag(text: str) -> BoxFlag:
    """An argparse type: `[NAME][@FRAME]:x,y,w,h`, or the four numbers alone."""
    match = _BOX.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected x,y,w,h or NAME@FRAME:x,y,w,h")
    name, frame = match["name"] or "object", None if match["frame"] is None else int(match["frame"])
    if match["box"] == "absent":
        return BoxFlag(name, frame, None)
    try:
        box_px = tuple(float(v) for v in match["box"].split(","))
    except ValueError:
        box_px = ()
    if len(box_px) != 4 or not all(abs(v) < 1e9 for v in box_px) or min(box_px[2:]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected x,y,w,h in pixels with a width and height above 0")
    return BoxFlag(name, frame, box_px)


def track_path(text: str) -> Path:
    """An argparse type: where tracks are written."""
    path = file_to_write(text)
    if path.suffix not in (".txt", ".json", ".jsonl"):
        raise argparse.ArgumentTypeError(f"{text}: expected .txt (one object), .json, or .jsonl for --records")
    return path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("video", type=Path, nargs="?", help="a video, or a folder of frames")
    add("--records", type=Path, help="instead: JSONL of records, each with 'video' and 'tracks' to complete")
    add("--root", type=Path, help="the folder that the records' paths are relative to (default: the file's own)")
    add("--box", type=box_flag, action="append", metavar="[NAME@FRAME:]x,y,w,h", help="where an object is, in pixels")
    add("--frame", type=count, default=0, help="the frame of boxes that name none, from 0 (default: %(default)s)")
    add("--out", type=track_path, required=True, help="object_bboxes.txt, or tracks as .json; .jsonl with --records")
    add("--meta_out", type=file_to_write, help="with --records: also write a meta JSON, for check and training")
    add("--tracker", default="csrt", help="csrt, mil, or a model's folder (default: %(default)s)")
    add("--min_confidence", type=float, help="below it an object is absent (default: 0.3, a model's 0.5)")
    add("--device", help="where a model runs (default: the first GPU, else the CPU)")
    add("--picture", type=png_path, help="also draw the track into frames of the video, as PNG")
    add("--num_frames", type=positive_int, default=12, help="frames of the picture (default: %(default)s)")
    add_video_backend(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError

    if (args.video is None) == (args.records is None):
        raise UserError("give a video with --box, or --records")
    if args.records is None and not args.box:
        raise UserError(f"{args.video}: say where the object is: --box x,y,w,h")
    if args.records is not None and (args.box or args.picture or args.out.suffix != ".jsonl"):
        raise UserError("--records holds its own boxes and writes .jsonl: leave --box and --picture out")
    if args.records is None and args.out.suffix == ".jsonl":
        raise UserError(f"--out {args.out}: tracks of one video are .txt or .json")
    from internvl_chat.trackers.choosing import choose_tracker

    settings = choose_tracker(args.tracker, args.min_confidence, args.device, args.video_backend)
    return _track_records(args, settings) if args.records else _track_video(args, settings)


def _track_video(args: argparse.Namespace, settings: TrackerSettings) -> int:
    from tqdm import tqdm

    from internvl_chat.contracts import UserError
    from internvl_chat.data.records.given.given_boxes import check_sized_boxes
    from internvl_chat.trackers.following import follow, given_of_track, num_steps
    from internvl_chat.trackers.frames import Footage

    footage = Footage(args.video, settings.backend)
    tracks = _rows_of_flags(args.box, args.frame)
    for track in tracks:
        check_sized_boxes(track, footage.size_px, args.video)
    objects = [given_of_track(track, footage) for track in tracks]
    if args.out.suffix == ".txt" and len(objects) > 1:
        raise UserError(f"--out {args.out}: a .txt holds one object, got {len(objects)}: write .json")
    with tqdm(total=num_steps(footage, objects), unit="frame", desc=args.video.name) as bar:
        followed = follow(footage, objects, settings.make, settings.min_confidence, bar.update)
    _write(args.out, objects, followed)
    if args.picture:
        _draw(args, footage, objects, followed)
    _tell_tracks(args, objects, followed)
    return 0


def _tell_tracks(args: argparse.Namespace, objects: list[GivenObject], followed: FollowedObjects) -> None:
    said, found = [], []
    for one, boxes_px, confidence in zip(objects, followed.boxes_px, followed.confidence, strict=True):
        least, seen = int(confidence.argmin()), int(boxes_px.any(axis=1).sum())
        said.append(
            f"{args.out}: {one.name}: seen on {seen} of {len(boxes_px)} frames, "
            f"least sure on frame {least} ({confidence[least]:.2f})"
        )
        found.append(
            {
                "name": one.name,
                "frames": len(boxes_px),
                "seen": seen,
                "least_sure_frame": least,
                "confidence": round(float(confidence[least]), 4),
            }
        )
    tell(args, "\n".join(said), out=args.out, objects=found)


def _rows_of_flags(flags: list[BoxFlag], default_frame: int) -> list[TrackRows]:
    """The objects in the order in which they are first named."""
    import numpy as np

    from internvl_chat.contracts import TrackRows, UserError
    from internvl_chat.data.records.given.given_boxes import check_unit

    rows = []
    for name in dict.fromkeys(flag.name for flag in flags):
        given = {default_frame if f.frame is None else f.frame: f.box_px for f in flags if f.name == name}
        if len(given) < sum(flag.name == name for flag in flags):
            raise UserError(
                f"--box: {name!r} is given twice on one frame: name objects or frames, as in dog@90:x,y,w,h"
            )
        boxes = {frame: box for frame, box in sorted(given.items()) if box is not None}
        if not boxes:
            raise UserError(f"--box: {name!r} is only said to be absent: give a box on some frame")
        corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes.values()])
        check_unit(corners, "pixels")
        absent = frozenset(given.keys() - boxes.keys())
        rows.append(TrackRows(name, np.array(list(boxes), dtype=np.float64), corners, in_pixels=True, absent=absent))
    return rows


def _write(path: Path, objects: list[GivenObject], followed: FollowedObjects) -> None:
    from internvl_chat.files import json_text, write_text
    from internvl_chat.trackers.lists import rounded, track_text, tracks_as_json

    confidence = [rounded(row, 3) for row in followed.confidence]
    if path.suffix == ".json":
        names = [one.name for one in objects]
        tracks = {"tracks": tracks_as_json(names, followed), "track_confidence": confidence}
        write_text(path, json_text(tracks) + "\n")
        return
    write_text(path, track_text(followed.boxes_px[0]))
    write_text(path.with_suffix(".confidence.txt"), "".join(f"{value}\n" for value in confidence[0]))


def _draw(args: argparse.Namespace, footage: Footage, objects: list[GivenObject], followed: FollowedObjects) -> None:
    from internvl_chat.boxes import thousandths_from_pixels
    from internvl_chat.data.media.drawing import Strip, contact_sheet
    from internvl_chat.data.media.sampling import sample_frames

    numbers = sample_frames(min(args.num_frames, footage.num_frames), footage.num_frames, "centre")
    frames = footage.at(numbers)
    strips = []
    for one, boxes_px, confidence in zip(objects, followed.boxes_px, followed.confidence, strict=True):
        boxes = thousandths_from_pixels(boxes_px[numbers], *footage.size_px)
        said = " ".join(f"{number} ({confidence[number]:.2f})" for number in numbers)
        strips.append(Strip(frames, boxes, [one.name, f"[frame (confidence)] {said}"]))
    save_png(contact_sheet(strips), args.picture)


def _track_records(args: argparse.Namespace, settings: TrackerSettings) -> int:
    from tqdm import tqdm

    from internvl_chat.contracts import UserError
    from internvl_chat.data.records.meta_files import write_meta
    from internvl_chat.files import write_jsonl
    from internvl_chat.trackers.lists import complete_records, videos_to_track

    root = args.root or args.records.parent
    videos = videos_to_track(args.records, root)
    failures: list[str] = []
    with tqdm(total=len(videos), unit="video") as bar:
        records = complete_records(videos, settings, args.out.with_suffix(".progress"), failures, bar.update)
        written = write_jsonl(args.out, records)
    for failure in failures:
        sys.stderr.write(f"error: {failure}\n")
    if not written:
        raise UserError(f"{args.records}: none of its {len(videos)} records could be tracked")
    if args.meta_out:
        write_meta(args.meta_out, args.out.stem, root, args.out, length=written)
    text = f"{args.out}: {written} of {counted(len(videos), 'record')}"
    tell(args, text, out=args.out, written=written, records=len(videos), failures=failures)
    return 1 if failures else 0
