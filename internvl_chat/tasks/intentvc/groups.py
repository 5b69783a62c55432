"""Parts of a test set to score apart: by category, by the size of the object, by how much of the clip shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from internvl_chat.boxes import BoxArray, is_absent, load_boxes
from internvl_chat.constants import BOX_SCALE
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.records.annotations import DatasetEntry, boxes_path_of, category_of, video_path_of
from internvl_chat.data.records.record_questions import (
    answers_known,
    entries_in,
    holds_records,
    question_sample,
    read_questions,
)
from internvl_chat.data.records.tracks import every_box_of
from internvl_chat.files import read_json

Groups = dict[str, dict[str, list[str]]]

# Mean area of the boxes as a share of the picture. The two bounds part the challenge's 420 test clips in thirds.
SIZE_BOUNDS = {"small": 0.02, "medium": 0.08, "large": 1.0}
# Share of frames with a box, from this on.
PRESENCE_BOUNDS = {"always": 1.0, "mostly": 0.9, "partly": 0.0}
NEVER = "never"


def known_clips(source: Path, ids: Iterable[str]) -> tuple[dict[str, Sample], dict[str, list[str]]]:
    """The clips of these ids with their tracks, and the answers that are known to them, of those that a data set has.

    Args:
        source: a dataset's root in the challenge's layout, a meta JSON or a file of records; a JSON file of boxes shows
            no clip.
    Raises:
        UserError: records that cannot be used.
    """
    ids = list(ids)
    if source.is_dir():
        entry = DatasetEntry(source.name, source, source)
        return {i: sample for i in ids if (sample := _in_layout(entry, i))}, {}
    if not holds_records(source):
        return {}, {}
    entries = entries_in(source)
    questions = read_questions(entries, set(ids))
    laid_out = {i: sample for i in ids if i not in questions and (sample := _in_layout(entries[0], i))}
    return {**laid_out, **{i: question.sample for i, question in questions.items()}}, answers_known(questions)


def _in_layout(entry: DatasetEntry, video_id: str) -> Sample | None:
    """A video in the challenge's layout, where it lies there."""
    sample = question_sample(entry, video_id, str)
    return sample if sample.video_path and sample.video_path.is_file() else None


def read_tracks(path: Path, ids: Iterable[str]) -> dict[str, BoxArray]:
    """Box tracks by id.

    Args:
        path: a dataset's root, with `object_bboxes.npy` beside each video; records with tracks, as a meta JSON or a
            file of them; or a JSON file {id: [[x1, y1, x2, y2], ...]} in thousandths.
        ids: whose tracks are wanted.
    Returns:
        id -> [T, 4] int64.
    Raises:
        UserError: a track is missing or not of this form.
    """
    ids = list(ids)
    if path.is_dir():
        paths = {i: boxes_path_of(video_path_of(path, i)) for i in ids}
        return {i: _not_empty(load_boxes(npy), str(npy)) for i, npy in paths.items()}
    if holds_records(path):
        clips, _ = known_clips(path, ids)
        without = [i for i in ids if i not in clips or not clips[i].tracks]
        if without:
            raise UserError(f"{path}: has no track of {without[0]!r}, and of {len(without)} ids in all")
        return {i: _not_empty(every_box_of(clips[i], clips[i].tracks[0]), clips[i].source) for i in ids}
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected {{id: [[x1, y1, x2, y2], ...]}} in thousandths")
    tracks: dict[str, BoxArray] = {}
    for video_id in ids:
        if video_id not in content:
            raise UserError(f"{path}: has no track of {video_id!r}")
        try:
            boxes = _not_empty(np.array(content[video_id]), f"{path}: {video_id!r}")
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}: the track of {video_id!r} is no list of boxes ({error})") from error
        shaped = boxes.ndim == 2 and boxes.shape[1] == 4 and boxes.dtype.kind in "iu"
        if not shaped or boxes.min() < 0 or boxes.max() > BOX_SCALE:
            raise UserError(f"{path}: {video_id!r}: expected boxes [x1, y1, x2, y2], whole numbers 0 to {BOX_SCALE}")
        tracks[video_id] = boxes.astype(np.int64)
    return tracks


def _not_empty(boxes: BoxArray, source: str) -> BoxArray:
    if not len(boxes):
        raise UserError(f"{source}: the track has no frame, expected a box a frame")
    return boxes


def size_of(boxes: BoxArray) -> str:
    """`small`, `medium` or `large` by the mean area of a track's boxes [T, 4]; `never` if it has none."""
    present = boxes[~is_absent(boxes)]
    if not len(present):
        return NEVER
    area = float(np.mean((present[:, 2] - present[:, 0]) * (present[:, 3] - present[:, 1]))) / BOX_SCALE**2
    return next(name for name, bound in SIZE_BOUNDS.items() if area < bound or bound == 1)


def presence_of(boxes: BoxArray) -> str:
    """`always`, `mostly` or `partly` by the share of a track's frames [T, 4] that have a box."""
    share = 1 - float(np.mean(is_absent(boxes)))
    return next(name for name, bound in PRESENCE_BOUNDS.items() if share >= bound)


def group_ids(ids: Iterable[str], tracks: Mapping[str, BoxArray] | None = None) -> Groups:
    """The ids of each group: grouping -> group -> ids; `size` and `presence` only where tracks are given."""
    groups: Groups = {"category": {}}
    if tracks is not None:
        groups["size"] = {name: [] for name in (*SIZE_BOUNDS, NEVER)}
        groups["presence"] = {name: [] for name in PRESENCE_BOUNDS}
    for video_id in ids:
        groups["category"].setdefault(category_of(video_id), []).append(video_id)
        if tracks is not None:
            groups["size"][size_of(tracks[video_id])].append(video_id)
            groups["presence"][presence_of(tracks[video_id])].append(video_id)
    return {kind: {name: members for name, members in parts.items() if members} for kind, parts in groups.items()}
