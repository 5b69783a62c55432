"""The words that stand for what is shown: a line a frame, and lines for what a control adds."""

from __future__ import annotations

from collections.abc import Sequence

from internvl_chat.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER

_VIDEO_LINE = VIDEO_PLACEHOLDER + "\n"


def frame_line(number: int, label: str = "Frame-1") -> str:
    r"""The line of one frame: `Frame-3: <image>\n`, or `Frame3: <image>\n`."""
    return f"{label[:-1]}{number}: {IMAGE_PLACEHOLDER}\n"


def expand_video(text: str, num_frames: int, label: str = "Frame-1", extra_lines: Sequence[str] = ()) -> str:
    r"""Replace `<video>\n` by a labelled `<image>` a frame: `Frame-1: <image>\nFrame-2: <image>\n`.

    Args:
        extra_lines: what follows the frames' lines, each line with its line break.
    Raises:
        ValueError: the text does not hold exactly one `<video>` followed by a line break.
    """
    lines = [frame_line(number, label) for number in range(1, num_frames + 1)]
    return replace_video(text, "".join([*lines, *extra_lines]))


def replace_video(text: str, shown: str) -> str:
    r"""Replace `<video>\n` by what stands for the frames.

    Raises:
        ValueError: the text does not hold exactly one `<video>` followed by a line break.
    """
    if text.count(VIDEO_PLACEHOLDER) != 1 or text.count(_VIDEO_LINE) != 1:
        raise ValueError(
            f"expected one '<video>' followed by a line break in the question, got {text!r}: "
            "write the question as '<video>\\n...'"
        )
    return text.replace(_VIDEO_LINE, shown)
