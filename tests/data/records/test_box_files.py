"""`generate_npy_bboxes.py`, run as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from internvl_chat.boxes import load_boxes, thousandths_from_pixels
from internvl_chat.contracts import UserError
from internvl_chat.data.media.video import read_frames, read_header
from tests.helpers import run_python, shared

NUM_VIDEOS = 12  # six clips, each with two targets


def generate(root: Path, *flags: str) -> CompletedProcess[str]:
    return run_python("generate_npy_bboxes.py", "--root", root, "--workers", "2", *flags)


def text_files(root: Path) -> list[Path]:
    return sorted(root.glob("*/*/object_bboxes.txt"))


def erase_frames(video: Path) -> None:
    """Zero what lies in an mp4's `mdat`: the header stays whole, no frame can be decoded."""
    content = bytearray(video.read_bytes())
    at = content.index(b"mdat")
    size = int.from_bytes(content[at - 4 : at], "big")
    content[at + 4 : at - 4 + size] = bytes(size - 8)
    video.write_bytes(content)


def test_first_run_writes_every_track_beside_its_video(raw_root: Path) -> None:
    result = generate(raw_root)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{NUM_VIDEOS} written, 0 skipped (up to date), 0 failed\n"
    for text in text_files(raw_root):
        boxes_px = np.loadtxt(text, delimiter=",")
        expected = thousandths_from_pixels(boxes_px, 192, 144)
        assert np.array_equal(load_boxes(text.with_suffix(".npy")), expected)
    assert [p.name for p in raw_root.glob("*/*/.*")] == []


def test_second_run_skips_what_is_up_to_date(raw_root: Path) -> None:
    generate(raw_root)
    changed, broken, *_ = text_files(raw_root)
    newer = changed.with_suffix(".npy").stat().st_mtime + 10
    os.utime(changed, (newer, newer))
    broken.with_suffix(".npy").write_bytes(b"half a fi")
    assert generate(raw_root).stdout == f"2 written, {NUM_VIDEOS - 2} skipped (up to date), 0 failed\n"
    assert len(load_boxes(broken.with_suffix(".npy"))) == 24


def test_overwrite_writes_all_again(raw_root: Path) -> None:
    generate(raw_root)
    assert generate(raw_root, "--overwrite").stdout == f"{NUM_VIDEOS} written, 0 skipped (up to date), 0 failed\n"


def test_failures_are_told_one_by_one_and_the_rest_is_written(raw_root: Path) -> None:
    short, broken, absent, *good = text_files(raw_root)
    short.write_text("".join(short.read_text().splitlines(keepends=True)[:-1]))
    broken.write_text(broken.read_text().replace("\n", "\noops\n", 1))
    absent.unlink()
    result = generate(raw_root)
    assert result.returncode == 1
    assert result.stdout == f"{len(good)} written, 0 skipped (up to date), 3 failed\n"
    assert f"{short}:23: " in result.stderr and "has 24" in result.stderr
    assert f"{broken}:2: " in result.stderr and "'oops'" in result.stderr
    assert f"{absent}: " in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(raw_root.glob("*/*/*.npy")) == [text.with_suffix(".npy") for text in good]


def test_no_frame_is_decoded(raw_root: Path) -> None:
    for video in raw_root.glob("*/*/*.mp4"):
        erase_frames(video)
    with pytest.raises(UserError):
        read_frames(video, np.array([0]))
    result = generate(raw_root)
    assert result.returncode == 0, result.stderr


def test_without_arguments_a_missing_root_is_one_clear_line() -> None:
    result = run_python("generate_npy_bboxes.py")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "shell/data/intentvc_caption.json" in result.stderr and "root" in result.stderr


@pytest.mark.parametrize("made", [False, True], ids=["no folder", "no videos"])
def test_a_root_without_videos_is_one_clear_line(made: bool, tmp_path: Path) -> None:
    root = tmp_path / "empty"
    if made:
        root.mkdir()
    result = generate(root)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and str(root) in result.stderr


def test_roots_come_from_the_meta_json_before_there_is_an_annotation(raw_root: Path, tmp_path: Path) -> None:
    meta = tmp_path / "meta.json"
    meta.write_text(f'{{"set": {{"root": "{raw_root}", "annotation": "not-yet.jsonl"}}}}')
    result = run_python("generate_npy_bboxes.py", "--meta_path", meta)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{NUM_VIDEOS} written")


def test_a_mix_may_hold_datasets_without_videos(raw_root: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    meta = tmp_path / "meta.json"
    roots = {"pictures": tmp_path / "pictures", "clips": raw_root, "clips again": raw_root}
    meta.write_text(json.dumps({name: {"root": str(root), "annotation": "a.jsonl"} for name, root in roots.items()}))
    result = run_python("generate_npy_bboxes.py", "--meta_path", meta)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{NUM_VIDEOS} written, 0 skipped")


def test_real_clips_keep_their_absent_frames(tmp_path: Path) -> None:
    root = Path(shutil.copytree(shared("data/real_clips"), tmp_path / "clips"))
    result = generate(root)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("5 written")
    dog = load_boxes(root / "dog" / "dog-1" / "object_bboxes.npy")
    assert len(dog) == 289
    assert int((dog == 0).all(axis=1).sum()) == 217
    for video in root.glob("*/*/*.mp4"):
        assert len(load_boxes(video.with_name("object_bboxes.npy"))) == read_header(video).num_frames
