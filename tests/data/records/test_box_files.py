"""`generate_npy_bboxes.py`, run as a user runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

import generate_npy_bboxes
from internvl_chat.boxes import load_boxes, thousandths_from_pixels
from internvl_chat.contracts import UserError
from internvl_chat.data.checking.check import check_meta
from internvl_chat.data.media.video import read_frames, read_header
from internvl_chat.data.records import box_files
from internvl_chat.data.records.annotations import load_meta, read_samples
from internvl_chat.data.records.box_files import PrepareReport, find_videos, prepare_boxes, write_boxes_beside
from internvl_chat.files import write_json, write_jsonl
from tests.data.media.films import SQUARE_PX, red_part, square_at, write_film
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


def test_second_run_writes_what_holds_other_boxes_than_its_text_whatever_their_age(raw_root: Path) -> None:
    generate(raw_root)
    touched, broken, changed, *_ = text_files(raw_root)
    os.utime(touched, None)
    broken.with_suffix(".npy").write_bytes(b"half a fi")
    changed.write_text("30,40,50,20\n" * 24)
    os.utime(changed, (1, 1))
    assert generate(raw_root).stdout == f"2 written, {NUM_VIDEOS - 2} skipped (up to date), 0 failed\n"
    assert len(load_boxes(broken.with_suffix(".npy"))) == 24
    assert load_boxes(changed.with_suffix(".npy"))[7].tolist() == [156, 278, 417, 417]


def rewrite(text: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    text.write_text("".join(f"{','.join(map(str, row))}\n" for row in change(np.loadtxt(text, delimiter=",")).tolist()))


def corners(boxes_px: np.ndarray) -> np.ndarray:
    return np.hstack([boxes_px[:, :2], boxes_px[:, :2] + boxes_px[:, 2:]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (corners, "(as x1,y1,x2,y2 all are inside|hold x1,y1,x2,y2, and this one may).*write x2 - x1"),
        (lambda boxes_px: boxes_px * 4, "(reach beyond the 192 x 144 pixels|reach beyond their videos).*another size"),
        (
            lambda boxes_px: boxes_px / 200,
            "reach no further than .*fractions; expected pixels of 192 x 144",
        ),
    ],
    ids=["corners", "scale", "fractions"],
)
def test_box_texts_in_another_order_or_unit_are_refused_all_together(
    change: Callable[[np.ndarray], np.ndarray], said: str, raw_root: Path
) -> None:
    for text in text_files(raw_root):
        rewrite(text, change)
    report = PrepareReport()
    list(prepare_boxes(find_videos(raw_root), workers=1, overwrite=False, report=report))
    assert not report.written and len(report.failed) == NUM_VIDEOS
    for (_, message), text in zip(report.failed, text_files(raw_root), strict=True):
        assert re.search(f"{text}: .*{said}", message), message


def test_boxes_counted_in_the_stored_picture_are_turned_with_it(tmp_path: Path) -> None:
    video = tmp_path / "dog" / "dog-1" / "dog-1.mp4"
    video.parent.mkdir(parents=True)
    write_film(video, range(0, 60, 10), turn=(270, False, False))
    text = video.with_name("object_bboxes.txt")
    text.write_text("".join(f"{x},{y},{SQUARE_PX},{SQUARE_PX}\n" for x, y in map(square_at, range(6))))
    assert write_boxes_beside(video, counted_in="stored")
    frames = read_frames(video, np.arange(6))
    for frame, box in zip(frames, load_boxes(text.with_suffix(".npy")), strict=True):
        assert np.abs(np.array(red_part(frame)) * 1000 - box).max() < 30
    assert not write_boxes_beside(video, counted_in="stored") and write_boxes_beside(video)


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


def test_boxes_of_data_that_cannot_be_written_to_lie_elsewhere(
    raw_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere, before = tmp_path / "boxes", sorted(raw_root.rglob("*"))
    monkeypatch.setattr("sys.argv", ["generate_npy_bboxes.py", "--out", str(elsewhere)])
    assert generate_npy_bboxes.main() == 1
    assert "--out stands for one dataset's folder: give that as --root" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["generate_npy_bboxes.py", "--root", str(raw_root), "--out", str(elsewhere)])
    assert generate_npy_bboxes.main() == 0
    assert sorted(raw_root.rglob("*")) == before
    video = find_videos(raw_root)[0]
    chat = [{"from": "human", "value": "<video>\nwhat?"}, {"from": "gpt", "value": "a dog"}]
    record = {"id": 1, "video": str(video.relative_to(raw_root)), "conversations": chat}
    write_jsonl(tmp_path / "a.jsonl", [record])
    fields = {"root": str(raw_root), "annotation": str(tmp_path / "a.jsonl"), "boxes_root": str(elsewhere)}
    write_json(tmp_path / "meta.json", {"d": fields})
    (entry,) = load_meta(tmp_path / "meta.json")
    (sample,) = read_samples(entry)
    assert sample.tracks[0].path == elsewhere / video.relative_to(raw_root).with_name("object_bboxes.npy")
    assert not check_meta(tmp_path / "meta.json", workers=1).findings
    text = video.with_name("object_bboxes.txt")
    text.write_text("1,2,9,9\n" * len(text.read_text().splitlines()))
    assert dict(check_meta(tmp_path / "meta.json", workers=1).counts()) == {"box-file-stale": 1}

    save = box_files.save_boxes
    monkeypatch.setattr(box_files, "save_boxes", lambda path, boxes: save(video / path.name, boxes))
    monkeypatch.setattr("sys.argv", ["generate_npy_bboxes.py", "--root", str(raw_root)])
    assert generate_npy_bboxes.main() == 1
    assert "cannot be written (File exists); --out FOLDER writes boxes elsewhere" in capsys.readouterr().err
