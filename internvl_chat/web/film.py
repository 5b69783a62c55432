"""What a clip and its objects look like on the page: frames at a size to draw on, and the tracks over the video.

Shape letters: H and W a picture's pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from internvl_chat.data.media.fonts import label_font
from internvl_chat.files import replacing
from internvl_chat.trackers.frames import Footage
from internvl_chat.web.pointing import DrawnBox, PointedClip, PointedObject

# Told apart by people who see few colours, and on any picture.
COLOURS = (
    (255, 176, 0),
    (100, 143, 255),
    (220, 38, 127),
    (0, 200, 140),
    (254, 97, 0),
    (170, 110, 255),
    (240, 240, 80),
    (120, 220, 255),
)
# A picture to draw on: a smaller one is shown larger, a larger one smaller.
DRAWN_WIDTH_PX = 640
FILM_WIDTH_PX, MOST_FILM_FRAMES, FRAMES_PER_SECOND = 480, 600, 10.0
_FONT_PX = 15


def colour_of(number: int) -> tuple[int, int, int]:
    """The colour of the object of this number, red green blue."""
    return COLOURS[(number - 1) % len(COLOURS)]


def drawn_scale(size_px: tuple[int, int]) -> float:
    """Pixels of the picture that is drawn on for one of the video."""
    return DRAWN_WIDTH_PX / size_px[0]


def picture_of(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A frame [H, W, 3] at the size that is drawn on."""
    height_px, width_px = frame.shape[:2]
    scale = drawn_scale((width_px, height_px))
    size_px = (DRAWN_WIDTH_PX, max(1, round(height_px * scale)))
    return np.asarray(Image.fromarray(frame).resize(size_px, Image.Resampling.BICUBIC))


def boxes_to_draw(pointed: PointedClip) -> list[dict[str, object]]:
    """The boxes of the shown frame as the drawing component takes them."""
    scale, boxes = drawn_scale(pointed.size_px), []
    for one in pointed.objects:
        x, y, w, h = (float(v) * scale for v in one.boxes_px[pointed.frame])
        if w and h:
            corners = {"xmin": x, "ymin": y, "xmax": x + w, "ymax": y + h}
            boxes.append({**corners, "label": one.label, "color": colour_of(one.number)})
    return boxes


def drawn_boxes(pointed: PointedClip, boxes: Sequence[dict]) -> list[DrawnBox]:
    """What the drawing component hands back, in pixels of the video; a label that is no object's is nobody's."""
    scale = drawn_scale(pointed.size_px)
    numbers = {one.label: one.number for one in pointed.objects}
    result = []
    for box in boxes:
        left, right = sorted((box["xmin"] / scale, box["xmax"] / scale))
        top, bottom = sorted((box["ymin"] / scale, box["ymax"] / scale))
        result.append(DrawnBox(numbers.get(box.get("label", "")), (left, top, right - left, bottom - top)))
    return result


def film_numbers(num_frames: int) -> npt.NDArray[np.int64]:
    """The frames of a clip that its film shows: all, or so many in equal steps."""
    return np.arange(0, num_frames, -(-num_frames // MOST_FILM_FRAMES))


def write_film(
    path: Path, footage: Footage, objects: Sequence[PointedObject], on_frame: Callable[[], object] = lambda: None
) -> None:
    """Write the video with the objects' boxes, names and confidence drawn into it, as MP4; a frame in memory at a time.

    Args:
        on_frame: called after each frame of `film_numbers`. What it raises ends the writing, and leaves no file.
    """
    import av

    numbers = film_numbers(footage.num_frames)
    scale = FILM_WIDTH_PX / footage.size_px[0]
    # H.264 halves the colours' resolution: sides are even.
    width_px, height_px = (max(2, round(side * scale / 2) * 2) for side in footage.size_px)
    rate = (footage.header.frames_per_second or FRAMES_PER_SECOND) * len(numbers) / footage.num_frames
    wanted = set(numbers.tolist())
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(rate).limit_denominator(1000), options={"preset": "veryfast"}
        )
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
        for number, frame in enumerate(footage.forwards(0)):
            if number in wanted:
                image = Image.fromarray(frame).resize((width_px, height_px), Image.Resampling.BILINEAR)
                _draw(image, objects, number, (width_px / footage.size_px[0], height_px / footage.size_px[1]))
                container.mux(stream.encode(av.VideoFrame.from_image(image)))
                on_frame()
        container.mux(stream.encode())


def frame_with_boxes(frame: npt.NDArray[np.uint8], objects: Sequence[PointedObject], number: int) -> Image.Image:
    """A frame at the size that is drawn on, with the boxes that the objects have on it."""
    image = Image.fromarray(picture_of(frame))
    _draw(image, objects, number, (image.width / frame.shape[1], image.height / frame.shape[0]))
    return image


def _draw(image: Image.Image, objects: Sequence[PointedObject], number: int, scale: tuple[float, float]) -> None:
    draw, font = ImageDraw.Draw(image), label_font(_FONT_PX)
    for one in objects:
        x, y, w, h = (float(v) for v in one.boxes_px[number] * np.array([*scale, *scale]))
        if w and h:
            colour = colour_of(one.number)
            draw.rectangle((x, y, x + w, y + h), outline=colour, width=2)
            said = f"{one.label} {one.confidence[number]:.2f}"
            place = (x, max(0, y - _FONT_PX - 3))
            draw.rectangle(draw.textbbox(place, said, font=font), fill=(0, 0, 0))
            draw.text(place, said, font=font, fill=colour)
