"""Reading videos."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from internvl_chat.contracts import UserError
from internvl_chat.data.media.timeline import Timeline
from internvl_chat.data.media.transforms import TileTransform
from internvl_chat.data.media.video import VideoBackend, read_frames, read_header, stream_frames
from tests.helpers import shared


def torchcodec_works() -> bool:
    """Whether torchcodec is installed and finds FFmpeg; no requirement of the tests, but tested where it is there."""
    try:
        import torchcodec
    except (ImportError, RuntimeError, OSError):
        return False
    return torchcodec.ffmpeg_major_version is not None


BACKENDS = ["pyav", "decord", *(["torchcodec"] if torchcodec_works() else [])]


@pytest.fixture(scope="module")
def clip(shapes_root: Path) -> Path:
    return sorted(shapes_root.glob("*/*/*.mp4"))[0]


def test_header_states_size_length_and_rate(clip: Path) -> None:
    header = read_header(clip)
    assert (header.size_px, header.timeline) == ((192, 144), Timeline(24, 12))


@pytest.mark.parametrize("content", [None, b"", b"this is no video"], ids=["missing", "empty", "text"])
def test_a_file_that_is_no_video_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "clip-1.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        read_header(path)
    for backend in BACKENDS:
        with pytest.raises(UserError, match=str(path)):
            read_frames(path, np.array([0]), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_come_in_the_order_asked_for_with_repeats(backend: VideoBackend, clip: Path) -> None:
    every = read_frames(clip, np.arange(24), backend)
    assert every.shape == (24, 144, 192, 3) and every.dtype == np.uint8
    indices = np.array([0, 3, 3, 17, 23, 23])
    assert np.array_equal(read_frames(clip, indices, backend), every[indices])
    assert len({frame.tobytes() for frame in every}) == 24


def test_both_backends_see_the_same_frames(clip: Path) -> None:
    indices = np.array([0, 5, 11, 12, 23])
    first, second = (read_frames(clip, indices, backend).astype(int) for backend in ("pyav", "decord"))
    assert np.abs(first - second).mean() < 1.0
    next_frames = read_frames(clip, np.array([1, 6, 12, 13, 22])).astype(int)
    assert np.abs(first - second).mean() < np.abs(first - next_frames).mean() / 2


def test_both_backends_see_the_same_frames_of_a_real_clip() -> None:
    path = shared("data/real_clips") / "horse" / "horse-1" / "horse-1.mp4"
    indices = np.array([0, 7, 7, 30, 48])
    first, second = (read_frames(path, indices, backend).astype(int) for backend in ("pyav", "decord"))
    assert np.abs(first - second).mean() < 2.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_video_that_ends_early_is_an_error(backend: VideoBackend, clip: Path) -> None:
    with pytest.raises(UserError, match=str(clip)):
        read_frames(clip, np.array([0, 20, 24]), backend)


def test_how_early_a_video_ends_is_said(clip: Path) -> None:
    with pytest.raises(UserError, match="24 frames.*frame 31"):
        read_frames(clip, np.array([2, 30, 40]))


def test_an_unknown_backend_is_refused(clip: Path) -> None:
    with pytest.raises(UserError, match="pyav, decord, torchcodec"):
        read_frames(clip, np.array([0]), "opencv")  # type: ignore[arg-type]


@pytest.mark.parametrize("installed", [None, SimpleNamespace(ffmpeg_major_version=None)], ids=["missing", "no FFmpeg"])
def test_torchcodec_that_does_not_work_is_explained(
    installed: object, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", installed)
    with pytest.raises(UserError, match=r"--video_backend torchcodec: .*requirements/torchcodec\.txt"):
        read_frames(clip, np.array([0]), "torchcodec")


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_file_stays_open(backend: VideoBackend, clip: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clip.read_bytes()[:-200])

    def read() -> None:
        read_frames(clip, np.array([1, 9]), backend)
        next(stream_frames(clip, np.array([0, 20]), backend))
        with pytest.raises(UserError):
            read_frames(broken, np.array([0, 23]), backend)

    read()
    gc.collect()
    open_before = os.listdir("/dev/fd")
    for _ in range(67):
        read()
    gc.collect()
    assert len(os.listdir("/dev/fd")) <= len(open_before)


class Clips(Dataset[torch.Tensor]):
    """Frames of some files, as a loader's worker makes them."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return TileTransform(28)(stream_frames(self.paths[index], np.array([0, 3])))


def test_a_broken_video_ends_the_loader_with_its_name(clip: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clip.read_bytes()[:300])
    loader = DataLoader(Clips([clip, clip, clip, broken, clip, clip]), num_workers=2, timeout=60)
    seen, batches = [], iter(loader)
    with pytest.raises(UserError, match=str(broken)):
        for tiles in batches:
            seen.append(tiles)
    # Left to the collector it waits ten seconds: by then the queues to its workers are gone.
    batches._shutdown_workers()  # type: ignore[attr-defined]
    assert len(seen) == 3 and all(torch.equal(tiles, seen[0]) for tiles in seen)


@pytest.mark.parametrize(
    ("there", "asked", "said"),
    [
        ("caf\u00e9/a.mp4", "cafe\u0301/a.mp4", r"holds 'caf\\xe9', which differs in its Unicode form"),
        ("clips/Dog.MP4", "clips/dog.mp4", "holds 'Dog.MP4', which differs in case"),
        ("clips/a.mp4", "clips\\a.mp4", r"folders are divided by '/', and it has '\\'"),
    ],
)
def test_a_name_that_looks_alike_is_told(there: str, asked: str, said: str, tmp_path: Path) -> None:
    (tmp_path / there).parent.mkdir()
    (tmp_path / there).touch()
    with pytest.raises(UserError, match=f"video not found; .*{said}$"):
        read_header(tmp_path / asked)
    with pytest.raises(UserError, match="none.mp4: video not found$"):
        read_header(tmp_path / there / ".." / ".." / "none.mp4")
