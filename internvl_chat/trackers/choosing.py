"""From what the user names, `csrt`, `mil` or a model's folder, to a tracker that is ready."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from internvl_chat.contracts import UserError
from internvl_chat.data.media.video import VideoBackend
from internvl_chat.trackers.lists import TrackerSettings

OPENCV_TRACKERS = ("csrt", "mil")
# Colours that are less alike than this are another thing's; a model's own head speaks in probabilities.
MIN_COLOUR_CONFIDENCE, MIN_MODEL_CONFIDENCE = 0.3, 0.5


def choose_tracker(
    name: str, min_confidence: float | None = None, device: str | None = None, backend: VideoBackend = "pyav"
) -> TrackerSettings:
    """The tracker of this name.

    Args:
        name: `csrt` or `mil`, or the folder of a model of transformers.
        min_confidence: below it an object counts as absent; None takes the tracker's own.
        device: where a model runs.
    Raises:
        UserError: a package is missing, or the folder holds no such model.
    """
    if name not in OPENCV_TRACKERS:
        from internvl_chat.trackers.video_model import VideoModel

        least = MIN_MODEL_CONFIDENCE if min_confidence is None else min_confidence
        return TrackerSettings(name, VideoModel(Path(name), device).tracker, least, backend)
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            f"--tracker {name} needs OpenCV with its contributed trackers: install requirements/track.txt, or name "
            f"the folder of a SAM 2, SAM 3 or EdgeTAM model instead ({error})"
        ) from error
    if not hasattr(cv2, "TrackerCSRT_create"):
        raise UserError(
            f"--tracker {name}: this OpenCV {cv2.__version__} has no CSRT; opencv-python beside opencv-contrib-python "
            "hides it: uninstall both, then install requirements/track.txt"
        )
    from internvl_chat.trackers.opencv import OpenCVTracker

    least = MIN_COLOUR_CONFIDENCE if min_confidence is None else min_confidence
    return TrackerSettings(name, partial(OpenCVTracker, name), least, backend)
