"""One object followed from a box on one frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from internvl_chat.contracts import TrackRows, UserError
from internvl_chat.data.media.video import VideoBackend
from internvl_chat.data.records.given.given_boxes import track_of_boxes
from internvl_chat.trackers.choosing import choose_tracker
from internvl_chat.trackers.following import follow, given_of_track
from internvl_chat.trackers.frames import Footage


def track_from_box(
    video: Path, box: TrackRows, frame: int, tracker: str = "csrt", backend: VideoBackend = "pyav"
) -> TrackRows:
    """The track of an object through the whole video, followed both ways.

    Args:
        box: one row, where the object is on frame number `frame`, from 0.
        tracker: as `choose_tracker` takes it.
    Raises:
        UserError: the video has no such frame, the box does not lie in it, or the tracker is not there.
    """
    footage = Footage(video, backend)
    if not 0 <= frame < footage.num_frames:
        raise UserError(f"{video}: has no frame {frame} to follow an object from: it has 0 to {footage.num_frames - 1}")
    start = TrackRows(box.name, np.array([float(frame)]), box.corners, in_pixels=box.in_pixels)
    settings = choose_tracker(tracker, backend=backend)
    boxes_px = follow(footage, [given_of_track(start, footage)], settings.make, settings.min_confidence).boxes_px[0]
    return track_of_boxes(boxes_px, box.name)
