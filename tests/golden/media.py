"""Pictures and videos of every kind, whose pixels are the same on every machine: all are kept without loss."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

NUM_FRAMES, WIDTH_PX, HEIGHT_PX, FRAMES_PER_SECOND = 23, 96, 72, 12
# None of them is of the challenge, whose submissions must be whole.
PUBLIC, PRIVATE = ("cup-1", "cup-2", "pool-3"), ("pool-4",)


def texture(width_px: int, height_px: int, shift: int = 0) -> npt.NDArray[np.uint8]:
    """A picture [H, W, 3] of slopes and stripes that moves with `shift`."""
    y, x = np.mgrid[:height_px, :width_px]
    return np.stack([5 * x + shift, 3 * y + 2 * x + 7 * shift, 40 * (x // 8) + 60 * (y // 6)], axis=2).astype(np.uint8)


def _write_video(path: Path, shift: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=Fraction(FRAMES_PER_SECOND))
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "rgb24"
        for t in range(NUM_FRAMES):
            picture = texture(WIDTH_PX, HEIGHT_PX, shift + t)
            picture[20:44, 10 + 2 * t : 30 + 2 * t] = (230, 60, 10 * t)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def write_media(root: Path) -> Path:
    """Write pictures, a folder of frames, a GIF, and videos in IntentVC's layout with their boxes as text."""
    root.mkdir()
    sizes_px = {"wide": (120, 40), "tall": (30, 50), "plain": (64, 48)}
    for name, size_px in sizes_px.items():
        Image.fromarray(texture(*size_px)).save(root / f"{name}.png")
    (root / "frames").mkdir()
    for number in range(11):
        Image.fromarray(texture(36, 24, number)).save(root / "frames" / f"{number + 1}.png")
    first, *others = (Image.fromarray(np.full((30, 40, 3), 20 * n, dtype=np.uint8)) for n in range(7))
    first.save(root / "moving.gif", save_all=True, append_images=others, duration=100)
    for number, video_id in enumerate((*PUBLIC, *PRIVATE)):
        folder = root / video_id.split("-")[0] / video_id
        folder.mkdir(parents=True)
        _write_video(folder / f"{video_id}.mp4", 11 * number)
        # The object is not to be seen in frames 9 to 13.
        rows = ["0,0,0,0" if 9 <= t <= 13 else f"{10 + 2 * t},20,20,24" for t in range(NUM_FRAMES)]
        (folder / "object_bboxes.txt").write_text("\n".join(rows) + "\n")
    return root
