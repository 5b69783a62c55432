"""A track and its caption as files to take away, and a record's line as something to go on with.

Shape letter: T frames of the clip.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from internvl_chat.boxes import BOX_ARRAY_NAME, BOX_TEXT_NAME, save_boxes, sized_boxes, thousandths_from_pixels
from internvl_chat.choices import PROMPT_FORMS
from internvl_chat.constants import BOX_SCALE, VIDEO_PLACEHOLDER
from internvl_chat.contracts import Sample, Track, TrackRows, UserError
from internvl_chat.data.media.sources import MediaHeader
from internvl_chat.data.prompts.wordings import question_about
from internvl_chat.data.records.reader import RecordReader
from internvl_chat.data.records.tracks import boxes_at
from internvl_chat.files import parse_json, read_text, split_records, write_jsonl, write_text
from internvl_chat.trackers.following import FollowedObjects
from internvl_chat.trackers.lists import rounded, track_text, tracks_as_json
from internvl_chat.web.pointing import MAX_OBJECTS, BoxPx, PointedClip, PointedObject
from internvl_chat.web.shelf import file_name_of


def record_of(pointed: PointedClip, one: PointedObject) -> dict[str, Any]:
    """A record to train on: the clip, the object's track, the question about it, and the caption."""
    video = file_name_of(pointed.clip)
    question = question_about(one.name, PROMPT_FORMS["coordinates"])
    followed = FollowedObjects(one.boxes_px[None], one.confidence[None])
    return {
        "id": f"{Path(video).stem}-{one.number}",
        "video": video,
        "width": pointed.size_px[0],
        "height": pointed.size_px[1],
        "conversations": [
            {"from": "human", "value": f"{VIDEO_PLACEHOLDER}\n{question}"},
            {"from": "gpt", "value": one.caption},
        ],
        "tracks": tracks_as_json([one.name], followed),
        "track_confidence": [rounded(one.confidence, 3)],
    }


def write_files(folder: Path, pointed: PointedClip, one: PointedObject) -> list[Path]:
    """Write one object's track as text and array, its caption, and the records of all captioned objects.

    Raises:
        UserError: the object is not tracked.
    """
    if not one.is_tracked:
        raise UserError(f"object {one.label!r} is not tracked as it is given now: track it first")
    written = [folder / BOX_TEXT_NAME, folder / BOX_ARRAY_NAME]
    write_text(written[0], track_text(one.boxes_px))
    save_boxes(written[1], thousandths_from_pixels(one.boxes_px, *pointed.size_px))
    if one.caption:
        written.append(folder / "caption.txt")
        write_text(written[-1], f"{one.caption}\n")
    records = [record_of(pointed, each) for each in pointed.objects if each.caption and each.is_tracked]
    if records:
        written.append(folder / "records.jsonl")
        write_jsonl(written[-1], records)
    return written


def read_record(path: Path, line: int, root: Path) -> Sample:
    """The record in one line of a file, its paths under `root`.

    Raises:
        UserError: no such line, or it is no record with a video.
    """
    records = list(split_records(read_text(path), path))
    if not 1 <= line <= len(records):
        raise UserError(f"{path.name}: has {len(records)} records, there is no number {line}")
    source = f"{path.name}:{records[line - 1].line}"
    sample = RecordReader(root).read(parse_json(records[line - 1].text, source), source)
    if sample.video_path is None:
        raise UserError(f"{source}: shows no video")
    return sample


def with_record(pointed: PointedClip, sample: Sample, header: MediaHeader) -> PointedClip:
    """A clip with the tracks of a record beside its objects, and its answer as the first track's caption.

    An object that has the name and the boxes of a track already is that track's.

    Raises:
        UserError: the tracks do not fit the clip, or none of them has a box, or there are too many.
    """
    answer = next((turn.text for turn in sample.turns if turn.speaker == "gpt"), "")
    opened: list[PointedObject] = []
    for track in sample.tracks:
        boxes_px = _track_px(track, header, sample.source)
        seen = np.flatnonzero(boxes_px.any(axis=1))
        if not len(seen):
            continue
        known = [one for one in pointed.objects if one.name == track.name and np.allclose(one.boxes_px, boxes_px)]
        if not known:
            given = {int(seen[0]): _box_of(boxes_px[seen[0]])}
            confidence = boxes_px.any(axis=1).astype(float)
            known = [PointedObject(pointed.next_number, track.name, given, boxes_px, confidence)]
            pointed = replace(pointed, objects=(*pointed.objects, *known))
        opened += known[:1]
    if not opened:
        raise UserError(f"{sample.source}: has no track with a box in it: there is nothing to go on with")
    if len(pointed.objects) > MAX_OBJECTS:
        raise UserError(
            f"{sample.source}: with its tracks {len(pointed.objects)} objects would be pointed at, at most "
            f"{MAX_OBJECTS}: remove some"
        )
    first = opened[0]
    if answer:
        pointed = pointed.with_object(replace(first, caption=answer, is_caption_current=True))
    return replace(pointed, next_name=first.name).at(int(np.flatnonzero(first.boxes_px.any(axis=1))[0]))


def _track_px(track: Track, header: MediaHeader, source: str) -> npt.NDArray[np.float64]:
    """Boxes [T, 4] of a record's track, x y w h in pixels: its own where it counts in pixels of the shown frames."""
    width_px, height_px = header.sizes_px[0]
    corners = boxes_at(track, np.arange(header.num_pictures), header, source) / BOX_SCALE
    corners = corners * np.array([width_px, height_px] * 2)
    boxes_px = sized_boxes(corners)
    if isinstance(track, TrackRows) and track.in_pixels and track.is_complete and not track.in_stored:
        return np.where(boxes_px.any(axis=1, keepdims=True), sized_boxes(track.corners), 0)
    return boxes_px


def _box_of(row: npt.NDArray[np.float64]) -> BoxPx:
    x, y, w, h = row.tolist()
    return x, y, w, h
