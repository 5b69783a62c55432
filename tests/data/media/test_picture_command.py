"""What `picture` draws of any film that PyAV can write: the box lies on the object, measured by colour."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from internvl_chat.__main__ import main
from internvl_chat.choices import VIDEO_BACKENDS
from internvl_chat.data.media.drawing import BOX_COLOUR, GAP_PX
from internvl_chat.files import write_json, write_jsonl
from tests.data.media.films import SQUARE_PX, edit, plainly_decoded, square_at, write_film

TILE_PX, NUM_FRAMES = 160, 3
CHAT = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "A square."}]


def bounds(mask: np.ndarray) -> np.ndarray:
    """x1 y1 x2 y2 of what is true, pixels."""
    ys, xs = np.nonzero(mask)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


def assert_drawn_on_the_square(sheet: Path) -> None:
    pixels = np.array(Image.open(sheet).convert("RGB")).astype(int)
    for number in range(NUM_FRAMES):
        left = GAP_PX + number * (TILE_PX + GAP_PX)
        tile = pixels[:, left : left + TILE_PX]
        drawn = bounds((tile == BOX_COLOUR).all(2))
        red = bounds((tile[..., 0] > 150) & (tile[..., 1] < 90) & (tile[..., 2] < 90))
        # The line, three pixels wide, is drawn inwards over the square's edge.
        assert np.abs(drawn - red).max() <= 6, (number, drawn, red)


def track_of(numbers: list[int], seconds: list[float] | None = None) -> dict[str, Any]:
    """The square's boxes in the stored frames of these numbers, by frame or by second."""
    boxes = [[x, y, x + SQUARE_PX, y + SQUARE_PX] for x, y in map(square_at, numbers)]
    track = {"name": "square", "unit": "pixels", "order": "xyxy", "counted_in": "stored"}
    if seconds is None:
        return {**track, "boxes": boxes}
    return {**track, "by": "second", "boxes": {f"{s:.6f}": box for s, box in zip(seconds, boxes, strict=True)}}


@settings(max_examples=4, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    turn=st.tuples(st.sampled_from([0, 90, 180, 270]), st.booleans(), st.booleans()),
    steps=st.lists(st.sampled_from([10, 10, 20, 35, 600]), min_size=9, max_size=12),
    first=st.integers(0, 4),
    is_cut=st.booleans(),
    reordered=st.booleans(),
)
def test_a_box_lies_on_its_object_with_each_backend_or_the_backend_is_refused(
    turn: tuple[int, bool, bool],
    steps: list[int],
    first: int,
    is_cut: bool,
    reordered: bool,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, times = tmp_path_factory.mktemp("films"), [0, *itertools.accumulate(steps)]
    options = {"bf": "2" if reordered else "0", "crf": "5", "preset": "ultrafast"}
    film = write_film(folder / "film.mp4", times, turn=turn, options=options)
    if is_cut:
        edit(film, times[first] / 600, times[first + 4] / 600)
    numbers, seconds = plainly_decoded(film)
    record = {"video": "film.mp4", "conversations": CHAT}
    tracks = track_of(numbers), track_of(numbers, seconds)
    write_jsonl(folder / "a.jsonl", [{"id": n, "tracks": [track], **record} for n, track in enumerate(tracks)])
    write_json(folder / "meta.json", {"d": {"root": str(folder), "annotation": str(folder / "a.jsonl")}})
    for backend, line in itertools.product(VIDEO_BACKENDS, (1, 2)):
        out = folder / f"{backend}{line}.png"
        argv = ["picture", "--meta", folder / "meta.json", "--line", line, "--num_frames", NUM_FRAMES, "--out", out]
        if main([*map(str, argv), "--video_backend", backend]) == 0:
            assert_drawn_on_the_square(out)
        else:
            assert f"--video_backend {backend}" in capsys.readouterr().err and backend != "pyav"
    first_sheet, second_sheet = (np.array(Image.open(folder / f"pyav{line}.png"))[:90] for line in (1, 2))
    assert np.array_equal(first_sheet, second_sheet), "tracks by frame and by second agree"
