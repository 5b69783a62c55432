"""Situations from public bug reports, made by the programs of ../shared/cases: all end in the truth or one message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from internvl_chat.boxes import parse_box_text, save_boxes, thousandths_from_pixels
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.checking.check import check_meta
from internvl_chat.data.media.sampling import clip_window, sample_frames
from internvl_chat.data.media.sources import Pictures, read_media_header, read_pictures
from internvl_chat.data.records.annotations import load_meta, read_samples
from internvl_chat.data.records.box_files import PrepareReport, find_videos, prepare_boxes, write_boxes_beside
from internvl_chat.data.records.tracks import boxes_at
from tests.data.media.films import red_part
from tests.helpers import run_python, shared


def made(name: str, out: Path, *more: str) -> Path:
    """Run a case's program; returns its folder."""
    result = run_python(shared("cases") / f"{name}.py", out, *more)
    assert result.returncode == 0, result.stderr
    return out


def samples_of(folder: Path, meta: str = "meta.json") -> list[Sample]:
    return [sample for entry in load_meta(folder / meta) for sample in read_samples(entry)]


def shown(sample: Sample, indices: list[int]) -> tuple[Pictures, np.ndarray]:
    """Pictures and the first track's boxes at these numbers."""
    numbers = np.array(indices)
    header = read_media_header(sample)
    return read_pictures(sample, numbers), boxes_at(sample.tracks[0], numbers, header, sample.source)


def assert_on_object(pictures: Pictures, boxes: np.ndarray, off: float = 25) -> None:
    for picture, box in zip(pictures, boxes, strict=True):
        assert np.abs(np.array(red_part(picture)) * 1000 - box).max() < off


def test_rotated_phone_video(tmp_path: Path) -> None:
    folder = made("rotated_phone_video", tmp_path)
    write_boxes_beside(folder / "dog/dog-1/dog-1.mp4")
    (sample,) = samples_of(folder)
    assert read_media_header(sample).sizes_px == ((90, 160),)
    assert_on_object(*shown(sample, [0, 20, 47]))


def test_exif_photo(tmp_path: Path) -> None:
    for sample in samples_of(made("exif_photo", tmp_path)):
        assert read_media_header(sample).sizes_px == ((200, 400),)
        assert_on_object(*shown(sample, [0]))


def test_odd_pictures(tmp_path: Path) -> None:
    refused = {}
    for sample in samples_of(made("odd_pictures", tmp_path)):
        try:
            (picture,) = read_pictures(sample, np.array([0]))
        except UserError as error:
            refused[sample.id] = str(error)
            continue
        assert 30 < picture.mean() < 240 and picture.std() > 10, sample.id
        if sample.id in ("logo.png", "palette.png"):
            assert (picture[:20] == 255).all()
    assert sorted(refused) == ["float.tif", "thermal16.png", "thermal16.tif"]
    assert all("8 bits" in message for message in refused.values())


def test_edit_list_trim(tmp_path: Path) -> None:
    folder = made("edit_list_trim", tmp_path)
    video = folder / "dog/dog-1/dog-1.mp4"
    write_boxes_beside(video)
    (sample,) = samples_of(folder)
    assert read_media_header(sample).num_pictures == 72
    numbers = [round(float(picture.mean()) / 2) for picture in read_pictures(sample, np.array([0, 71]))]
    assert np.abs(np.array(numbers) - [48, 119]).max() <= 1
    (video.with_name("object_bboxes.txt")).write_text((video.with_name("object_bboxes_header.txt")).read_text())
    with pytest.raises(UserError, match=r"has 120 lines, expected one a frame: dog-1.mp4 has 72"):
        write_boxes_beside(video, overwrite=True)


def test_open_gop_cut(tmp_path: Path) -> None:
    for sample in samples_of(made("open_gop_cut", tmp_path)):
        assert read_media_header(sample).num_pictures == 72
        if sample.id.endswith("-72"):
            assert len(shown(sample, [0, 71])[1]) == 2
        else:
            with pytest.raises(UserError, match="has 75 boxes for 72 pictures"):
                shown(sample, [0])


def test_variable_frame_rate(tmp_path: Path) -> None:
    whole, clip = samples_of(made("variable_frame_rate", tmp_path))
    assert_on_object(*shown(whole, [0, 29, *range(60, 69)]))
    header = read_media_header(clip)
    assert clip_window(clip.clip_s, header.timeline) == (64, 4)
    seconds = [round((float(picture[0, 0, 1]) - 20) / 12) for picture in read_pictures(clip, 64 + np.arange(4))]
    assert seconds == [5, 6, 7, 8]
    frames = sample_frames(48, header.num_pictures, "fps1", timeline=header.timeline)
    assert frames.tolist() == [30, 60, 61, 62, 63, 64, 65, 66, 67, 68]


def prepared(root: Path) -> PrepareReport:
    report = PrepareReport()
    list(prepare_boxes(find_videos(root), workers=1, overwrite=False, report=report))
    return report


def codes(folder: Path, meta: str = "meta.json") -> dict[str, int]:
    """How often `check` finds each fault."""
    return dict(check_meta(folder / meta, workers=1).counts())


@pytest.mark.parametrize(("kind", "code"), [("scaled", "box-unit"), ("corners", "box-order")])
def test_wrong_scale_boxes(kind: str, code: str, tmp_path: Path) -> None:
    folder = made("wrong_scale_boxes", tmp_path)
    report = prepared(folder / kind)
    assert not report.written and len(report.failed) == 10
    for video in find_videos(folder / kind):  # as an older version would have written them
        boxes_px = parse_box_text(video.with_name("object_bboxes.txt"))
        save_boxes(video.with_name("object_bboxes.npy"), thousandths_from_pixels(boxes_px, 640, 360))
    assert codes(folder, f"{kind}.json")[code] == 10


def test_stale_boxes(tmp_path: Path) -> None:
    folder = made("stale_boxes", tmp_path)
    assert len(prepared(folder).written) == 1
    assert not codes(folder)
    made("stale_boxes", tmp_path, "fix")
    assert codes(folder) == {"box-file-stale": 1}
    assert len(prepared(folder).written) == 1
    (sample,) = samples_of(folder)
    assert shown(sample, [5])[1].tolist() == [[625, 156, 833, 469]]
    assert not codes(folder)
