"""The frame cache: what it finds again, what it forgets, and that its faults stop nothing."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from internvl_chat.contracts import UserError
from internvl_chat.data.media.frame_cache import FrameCache

SHAPE = (3, 8, 8, 3)
ENTRY_BYTES = 20 + 3 * 8 * 8 * 3
INDICES = np.array([0, 4, 9])


class Producer:
    """Counts how often tiles had to be made."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> npt.NDArray[np.uint8]:
        self.calls += 1
        return np.full(SHAPE, self.calls, np.uint8)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"any")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> FrameCache:
    return FrameCache(tmp_path / "cache", 10 * ENTRY_BYTES)


def entries(cache: FrameCache) -> list[Path]:
    return sorted(cache.folder.glob("*.tiles"))


def test_what_was_made_once_is_found_again(cache: FrameCache, video: Path) -> None:
    produce = Producer()
    first = cache.tiles(video, INDICES, 8, "pyav", produce)
    again = FrameCache(cache.folder, cache.max_bytes).tiles(video, INDICES.copy(), 8, "pyav", produce)
    assert np.array_equal(first, again) and again.shape == SHAPE and again.dtype == np.uint8
    assert produce.calls == 1
    again[:] = 99
    assert np.array_equal(cache.tiles(video, INDICES, 8, "pyav", produce), first)


def test_every_part_of_the_key_counts(cache: FrameCache, video: Path) -> None:
    produce = Producer()
    other = video.with_name("other.mp4")
    other.write_bytes(video.read_bytes())
    cache.tiles(video, INDICES, 8, "pyav", produce)
    cache.tiles(other, INDICES, 8, "pyav", produce)
    cache.tiles(video, INDICES + 1, 8, "pyav", produce)
    cache.tiles(video, INDICES, 9, "pyav", produce)
    cache.tiles(video, INDICES, 8, "decord", produce)
    cache.tiles(video, INDICES, 8, "pyav", produce, variant="red box")
    assert produce.calls == len(entries(cache)) == 6
    os.utime(video, ns=(1, 1))
    cache.tiles(video, INDICES, 8, "pyav", produce)
    video.write_bytes(b"longer")
    os.utime(video, ns=(1, 1))
    cache.tiles(video, INDICES, 8, "pyav", produce)
    assert produce.calls == 8


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "shape", "loop"])
def test_a_broken_entry_is_dropped(damage: str, cache: FrameCache, video: Path) -> None:
    produce = Producer()
    cache.tiles(video, INDICES, 8, "pyav", produce)
    (path,) = entries(cache)
    content = bytearray(path.read_bytes())
    assert len(content) == ENTRY_BYTES
    if damage == "flipped":
        content[-3] ^= 1
    elif damage == "shape":
        content[4] ^= 1
    path.write_bytes(content[:100] if damage == "cut" else b"" if damage == "empty" else content)
    if damage == "loop":
        path.unlink()
        path.with_suffix(".tiles").symlink_to(path)
    assert cache.tiles(video, INDICES, 8, "pyav", produce)[0, 0, 0, 0] == 2
    assert cache.tiles(video, INDICES, 8, "pyav", produce)[0, 0, 0, 0] == 2
    assert produce.calls == 2


def test_the_least_recently_used_make_room(cache: FrameCache, video: Path) -> None:
    produce = Producer()
    for start in range(10):
        cache.tiles(video, INDICES + start, 8, "pyav", produce)
        time.sleep(0.002)
    cache.tiles(video, INDICES, 8, "pyav", produce)
    assert produce.calls == len(entries(cache)) == 10
    for start in (10, 11, 12):
        cache.tiles(video, INDICES + start, 8, "pyav", produce)
    assert len(entries(cache)) == 10
    cache.tiles(video, INDICES, 8, "pyav", produce)
    assert produce.calls == 13, "used again, and so kept"
    cache.tiles(video, INDICES + 1, 8, "pyav", produce)
    assert produce.calls == 14


def test_more_than_the_cap_is_not_kept(tmp_path: Path, video: Path) -> None:
    cache, produce = FrameCache(tmp_path / "small", ENTRY_BYTES - 1), Producer()
    cache.tiles(video, INDICES, 8, "pyav", produce)
    assert not [path for path in cache.folder.iterdir() if path.name != ".lock"]


def test_half_written_files_of_killed_processes_go(cache: FrameCache, video: Path) -> None:
    old, fresh = cache.folder / "a.tmp", cache.folder / "b.tmp"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    cache.tiles(video, INDICES, 8, "pyav", Producer())
    assert not old.exists() and fresh.exists()


def test_a_write_that_fails_is_not_fatal(
    cache: FrameCache, video: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    for number in range(3):
        assert cache.tiles(video, INDICES + number, 8, "pyav", Producer()).shape == SHAPE
    assert caplog.text.count("No space left") == 1
    assert not list(cache.folder.glob("*.t*"))


def test_tiles_beyond_the_cap_are_told_once(video: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small = FrameCache(tmp_path / "small", ENTRY_BYTES - 1)
    for number in range(3):
        small.tiles(video, INDICES + number, 8, "pyav", Producer())
    assert caplog.text.count("tiles of one video exceed") == 1 and not entries(small)


@pytest.mark.parametrize("max_bytes", [0, -1])
def test_a_cap_below_one_is_refused(max_bytes: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="size cap"):
        FrameCache(tmp_path / "cache", max_bytes)


def test_a_folder_that_cannot_be_made(video: Path) -> None:
    with pytest.raises(UserError, match="cannot be written to"):
        FrameCache(video / "cache", 100)


def use(cache: FrameCache, video: Path, seed: int) -> int:
    """Ask for twenty of eight entries, under a cap for four; returns how many came back wrong."""
    wrong = 0
    for number in np.random.default_rng(seed).integers(0, 8, 20).tolist():
        tiles = cache.tiles(video, INDICES + number, 8, "pyav", lambda n=number: np.full(SHAPE, n, np.uint8))
        wrong += int(not np.array_equal(tiles, np.full(SHAPE, number)))
    return wrong


def test_several_processes_share_it(tmp_path: Path, video: Path) -> None:
    cache = FrameCache(tmp_path / "shared", 4 * ENTRY_BYTES)
    with ProcessPoolExecutor(3) as pool:
        assert list(pool.map(use, [cache] * 3, [video] * 3, range(3))) == [0, 0, 0]
    assert 1 <= len(entries(cache)) <= 4
    assert not list(cache.folder.glob("*.tmp"))
