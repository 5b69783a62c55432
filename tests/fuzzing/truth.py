"""Good records of a red square whose place is known: check passes them, training takes them, and boxes lie on it.

Each seed draws a medium (films stored in ways that players undo, folders of frames, photos) and a way in which the
square's place is written down. What is measured are the bytes that a sample hands to the model.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from transformers import PreTrainedTokenizerBase

from internvl_chat.boxes import sized_boxes
from internvl_chat.contracts import UserError
from internvl_chat.data.checking.check import check_meta
from internvl_chat.data.media.display import Display
from internvl_chat.data.media.sources import read_media_header
from internvl_chat.data.prompts.encoder import SampleEncoder
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.records.annotations import load_meta, read_samples
from internvl_chat.data.records.box_files import write_boxes_beside
from internvl_chat.files import write_json, write_jsonl
from tests.data.checking.planted import QUESTION, talk
from tests.data.media.films import SQUARE_PX, STORED_PX, TICKS, edit, red_part, square_at, stored_frame, write_film

# Up to here the square moves evenly.
MOST_FRAMES, TILE_PX = 14, 224
# Of the picture's side in thousandths: an encoder's blur, and a pixel of a tile.
OFF = 30
_CODECS = (("libx264", ".mp4"), ("libx264", ".mov"), ("libx264", ".mkv"), ("libvpx-vp9", ".webm"), ("mpeg4", ".avi"))
_TURNS = [(degrees, flip, False) for degrees in (0, 90, 180, 270) for flip in (False, True)]


class TruthFailure(AssertionError):
    """A good record is refused, or a box lies beside its object."""


def _stored_boxes(numbers: list[int]) -> npt.NDArray[np.float64]:
    """x1 y1 x2 y2 [K, 4] in fractions of the stored picture's sides."""
    corners = np.array([[*square_at(n), *square_at(n)] for n in numbers], dtype=np.float64)
    corners[:, 2:] += SQUARE_PX
    return corners / np.tile(STORED_PX, 2)


def _film(rng: random.Random, folder: Path) -> tuple[Path, list[int]]:
    """A film, and the numbers of its shown frames."""
    codec, suffix = rng.choice(_CODECS)
    steps = [rng.choice((20, 20, 20, 100, 300)) for _ in range(rng.randint(3, MOST_FRAMES))]
    even = suffix == ".avi" or rng.random() < 0.5
    times = [20 * n for n in range(len(steps))] if even else np.cumsum([0, *steps[1:]]).tolist()
    is_turned = suffix in (".mp4", ".mov") and rng.random() < 0.6
    path = write_film(
        folder / f"film{suffix}",
        times,
        codec=codec,
        options={"bf": str(rng.choice((0, 2))), "g": str(rng.choice((4, 50)))} if codec == "libx264" else {},
        turn=rng.choice(_TURNS) if is_turned else None,
        pixel_aspect=rng.choice((None, Fraction(4, 3), Fraction(3, 4))) if suffix != ".webm" else None,
    )
    numbers = list(range(len(times)))
    if suffix == ".mp4" and even and len(times) > 6 and rng.random() < 0.3:
        edit(path, times[3] / TICKS, (times[-1] + 20) / TICKS)
        numbers = numbers[3:]
    return path, numbers


def _frames(rng: random.Random, folder: Path) -> tuple[Path, list[int]]:
    numbers, suffix = list(range(rng.randint(2, MOST_FRAMES))), rng.choice((".png", ".jpg", ".webp"))
    (folder / "frames").mkdir()
    exif = _orientation(rng)
    for number in numbers:
        Image.fromarray(stored_frame(number)).save(folder / "frames" / f"{number:05d}{suffix}", exif=exif, quality=95)
    return folder / "frames", numbers


def _orientation(rng: random.Random) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = rng.choice((1, 1, *range(2, 9)))
    return exif


def _photo(rng: random.Random, folder: Path) -> tuple[Path, list[int]]:
    number = rng.randint(0, MOST_FRAMES)
    suffix, mode = rng.choice(((".jpg", "RGB"), (".png", "RGBA"), (".png", "P"), (".webp", "RGB"), (".jpg", "CMYK")))
    picture = Image.fromarray(stored_frame(number)).convert(mode)
    path = folder / f"photo{suffix}"
    picture.save(path, exif=_orientation(rng), **({"quality": 95} if suffix != ".png" else {}))
    return path, [number]


def _track(rng: random.Random, numbers: list[int], times_s: list[float], display: Display) -> dict[str, Any]:
    """The keys of a record that say where the square is, in one of the ways that docs/records.md has."""
    stored = _stored_boxes(numbers)
    counted_in = rng.choice(("shown", "stored"))
    corners = stored if counted_in == "stored" else display.shown_boxes(stored)
    size = STORED_PX if counted_in == "stored" else display.shown_size(*STORED_PX)
    unit, order = rng.choice(("pixels", "unit", "thousandths")), rng.choice(("xyxy", "xywh"))
    corners = corners * {"pixels": np.tile(size, 2), "unit": 1.0, "thousandths": 1000.0}[unit]
    rows = [[round(v, 5) for v in row] for row in (sized_boxes(corners) if order == "xywh" else corners).tolist()]
    track: dict[str, Any] = {"name": "square", "unit": unit, "order": order, "counted_in": counted_in}
    by_second = bool(times_s) and rng.random() < 0.4
    keys = [f"{time:.6f}" for time in times_s] if by_second else [str(k) for k in range(len(rows))]
    boxes: Any = dict(zip(keys, rows, strict=True))
    if not by_second and len(rows) > 4 and rng.random() < 0.4:
        boxes = {key: box for n, (key, box) in enumerate(boxes.items()) if n % 3 == 0 or n == len(rows) - 1}
        track["interpolate"] = True
    elif not by_second and rng.random() < 0.5:
        boxes = rows
    record: dict[str, Any] = {"tracks": [{**track, "boxes": boxes, "by": "second" if by_second else "frame"}]}
    if unit == "pixels" and rng.random() < 0.5:
        record |= dict(zip(("width", "height"), size, strict=True))
    return record


def _record(rng: random.Random, folder: Path) -> dict[str, Any]:
    """A good record of one medium under `folder`."""
    make: Callable[[random.Random, Path], tuple[Path, list[int]]] = rng.choice((_film, _film, _frames, _photo))
    path, numbers = make(rng, folder)
    is_photo = make is _photo
    sample = {"image" if is_photo else "video": path.name, "id": path.name}
    plain = talk("What is it?", "<image>\n" if is_photo else "<video>\n")
    entry = {"root": str(folder), "annotation": str(folder / "plain.jsonl")}
    write_jsonl(folder / "plain.jsonl", [{**sample, **plain}])
    write_json(folder / "plain.json", {"d": entry})
    header = read_media_header(read_samples(load_meta(folder / "plain.json")[0])[0])
    if header.num_pictures != len(numbers):
        raise TruthFailure(f"{path.name}: shows {len(numbers)} frames, {header.num_pictures} are counted")
    display = header.display_at(0)
    if make is _film and path.suffix == ".mp4" and rng.random() < 0.3:
        return _beside(rng, path, numbers, display)
    times_s = header.timeline.seconds_of(np.arange(len(numbers))).tolist() if header.frames_per_second else []
    asked = talk(QUESTION, "<image>\n" if is_photo else "<video>\n")
    return {**sample, **asked, **_track(rng, numbers, times_s, display)}


def _beside(rng: random.Random, path: Path, numbers: list[int], display: Display) -> dict[str, Any]:
    """IntentVC's form: the boxes stand in a text beside the video, x y w h in pixels."""
    folder = path.parent / "square" / "square-1"
    folder.mkdir(parents=True)
    path = Path(shutil.move(path, folder / "square-1.mp4"))
    counted_in = rng.choice(("shown", "stored"))
    stored = _stored_boxes(numbers)
    corners = stored if counted_in == "stored" else display.shown_boxes(stored)
    size = STORED_PX if counted_in == "stored" else display.shown_size(*STORED_PX)
    rows = sized_boxes(corners * np.tile(size, 2))
    gap = rng.choice((",", " ", "\t", ", "))
    (folder / "object_bboxes.txt").write_text("".join(gap.join(f"{v:.3f}" for v in row) + "\n" for row in rows))
    write_boxes_beside(path, counted_in=counted_in)
    return {"id": "square-1", "video": "square-1/square-1.mp4", **talk(QUESTION, "<video>\n")}


def try_good_record(seed: int, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the good record of a seed in an empty folder, and follow it to the model's door.

    Raises:
        TruthFailure: check finds anything, training refuses it, or a box is off the square.
    """
    rng = random.Random(seed)
    config = PromptConfig.of("internvl2_5", force_image_size=TILE_PX, tokens_per_frame=3, dynamic_image_size=False)
    try:
        record = _record(rng, folder)
        write_jsonl(folder / "a.jsonl", [record])
        write_json(folder / "m.json", {"d": {"root": str(folder), "annotation": str(folder / "a.jsonl")}})
        said = json.dumps(record)
        findings = [str(finding) for finding in check_meta(folder / "m.json", workers=1).findings]
        (sample,) = read_samples(load_meta(folder / "m.json")[0])
        encoder = SampleEncoder(tokenizer, config)
        vision = encoder(sample, encoder.choose_frames(sample, rng.randint(1, MOST_FRAMES), "middle"))["vision"]
    except UserError as error:
        raise TruthFailure(f"good record {seed} is refused: {error}") from error
    if findings:
        raise TruthFailure(f"good record {seed}: {said:.400}: {findings}")
    for tile, box in zip(vision["pixel_values"].permute(0, 2, 3, 1).numpy(), vision["boxes"].tolist(), strict=True):
        off = np.abs(np.array(red_part(tile)) * 1000 - box).max() if any(box) else 1000
        if off > OFF:
            raise TruthFailure(f"good record {seed}: {said:.400}: a box is {off:.0f} thousandths off its object")
