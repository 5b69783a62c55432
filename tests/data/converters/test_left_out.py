"""`convert-data --skip_bad` leaves out what has a fault, whole, and lists why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.data.converters.miniatures import MINIATURES
from tests.data.converters.test_tracked import convert

SECOND_TRACK = """<track id="1" label="ball"><box frame="2" outside="0" xtl="1" ytl="2" xbr="3" ybr="4"/></track>
</annotations>"""
AT_TWO = """"image_id": 2,
   "video_id": 1,
   "category_id": 3"""
SECOND_INSTANCE = """"annotations": [{"image_id": 1, "category_id": 3, "instance_id": 6, "bbox": [1, 2, 3, 4]}, """


@pytest.mark.parametrize(
    ("kind", "name", "changes", "told", "kept"),
    [
        # Another label on a later row; a frame that is none; a row that does not say which object it is of.
        ("boxes-csv", "boxes.csv", {"3,a,dog": "3,a,fox"}, "csv:3: object 'a' is 'fox' here and 'dog' at ", "clip-b-0"),
        ("boxes-csv", "boxes.csv", {"mp4,3,a": "mp4,x,a"}, "boxes.csv:3: frame: 'x' is no number", "clip-b-0"),
        ("boxes-csv", "boxes.csv", {"mp4,3,a": "mp4,3,"}, "boxes.csv:3: 'object' is empty", "clip-a-0 clip-b-0"),
        ("mot", "MOT-02/gt/gt.txt", {"14,11,20": "14,?,20"}, "gt.txt:2: '?' is no number", "MOT-02-5-0"),
        (
            "mot",
            "MOT-02/gt/gt.txt",
            {"20,30.5,1,1": "20,30.5,1,2"},
            "gt.txt:2: object 2 is 'rider' here and 'walker' at",
            "MOT-02-5-0",
        ),
        ("cvat", "annotations.xml", {'xbr="34"': "", "</annotations>": SECOND_TRACK}, "xml:7: a box wi", "clip-1-0"),
        ("yolo-tracks", "labels/clip_3.txt", {"0.54": "x"}, "clip_3.txt:1: 'x' is no number", "clip-8-0"),
        (
            "yolo-tracks",
            "labels/clip_3.txt",
            {"1 0.54": "0 0.54"},
            "clip_3.txt:1: track 7 is 'cat' here and 'dog' at ",
            "clip-8-0",
        ),
        (
            "coco-vid",
            "coco_vid.json",
            {"30.5": "null", '"annotations": [': SECOND_INSTANCE},
            "annotation 3: a box is",
            "v7-6-0",
        ),
        (
            "coco-vid",
            "coco_vid.json",
            {
                '"categories": [': '"categories": [{"id": 4, "name": "cow"}, ',
                AT_TWO: AT_TWO.replace("3", "4"),
                '"annotations": [': SECOND_INSTANCE,
            },
            "annotation 3: instance 4 is 'cow' here and 'horse' at ",
            "v7-6-0",
        ),
    ],
)
def test_an_object_with_a_faulty_row_is_left_out_whole(
    kind: str,
    name: str,
    changes: dict[str, str],
    told: str,
    kept: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    miniature = next(one for one in MINIATURES if one.kind == kind)
    source, path, out, left = miniature.write(tmp_path), tmp_path / name, tmp_path / "out.jsonl", tmp_path / "left.txt"
    text = path.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    assert convert(miniature, source, tmp_path, out) == 1 and not out.exists()
    assert told in capsys.readouterr().err
    assert convert(miniature, source, tmp_path, out, "--skip_bad", str(left)) == 0
    assert " ".join(json.loads(line)["id"] for line in out.read_text().splitlines()) == kept
    assert told in left.read_text()


def test_a_sequence_with_a_fault_is_left_out_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miniature = next(one for one in MINIATURES if one.kind == "mot")
    source, out, left = miniature.write(tmp_path), tmp_path / "out.jsonl", tmp_path / "left.txt"
    for name, row in (("MOT-04", "x,2,1,1,1,1\n1,2\n"), ("MOT-05", "1,2,10,11,20,30,1,1\n")):
        shutil.copytree(source / "MOT-02", source / name)
        (source / name / "gt" / "gt.txt").write_text(row)
    (source / "MOT-05" / "img1" / "000002.jpg").rename(source / "MOT-05" / "img1" / "000004.jpg")
    assert convert(miniature, source, tmp_path, out) == 1 and not out.exists()
    assert convert(miniature, source, tmp_path, out, "--skip_bad", str(left)) == 0
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["MOT-02-2-0", "MOT-02-5-0"]
    assert "MOT-04/gt/gt.txt:1" in left.read_text() and "picture 2 is 000003.jpg" in left.read_text()
