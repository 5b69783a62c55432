"""Sets of objects with tracks become the records counted by hand; what is broken is told, all of it, by its line."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internvl_chat.__main__ import main
from internvl_chat.choices import CONVERTERS, CONVERTERS_BOTH_WAYS, PROMPT_FORMS
from internvl_chat.contracts import UserError
from internvl_chat.data.checking.check import check_meta
from internvl_chat.data.converters.forms.conversion import Conversion
from internvl_chat.data.converters.forms.tracking import Question
from tests.data.converters.miniatures import MINIATURES, Miniature
from tests.fuzzing.mutations import mutated

# Those that `test_converters` and `test_both_ways` bring the sources of.
ELSEWHERE = {"cogvlm2", "llamafactory", "ms-swift", "coco", "refcoco", "lasot", "got10k", *CONVERTERS_BOTH_WAYS}
QUESTION = Question(PROMPT_FORMS["coordinates"], {})
# Broken copies tried of each file, and as many again of a JSON file with one value exchanged.
MUTATIONS = 40
MUTABLE = (".json", ".txt", ".xml", ".csv", ".xlsx")
VALUES = (None, True, -1, 0, 3, 0.5, 1e308, 10**30, "", "../x", "a" * 400, "\ud800", "3", [], {}, [1, 2, 3, 4], [[]])


def convert(miniature: Miniature, source: Path, root: Path, out: Path, *flags: str) -> int:
    argv = ["convert-data", "--from", miniature.kind, str(source), "--root", str(root), "--out", str(out)]
    return main([*argv, "--meta_out", str(out.with_suffix(".json")), *miniature.flags, *flags])


def test_every_reader_has_a_miniature() -> None:
    assert {one.kind for one in MINIATURES} == set(CONVERTERS) - ELSEWHERE


@pytest.mark.parametrize("miniature", MINIATURES, ids=lambda one: one.kind)
def test_a_miniature_becomes_these_records(miniature: Miniature, tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out.jsonl"
    root.mkdir()
    assert convert(miniature, miniature.write(root), root, out) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    for record, expected in zip(records, miniature.records, strict=True):
        assert (record["id"], record["video"]) == (expected.id, expected.video)
        assert record["conversations"][1]["value"] == expected.text
        for track, (name, boxes) in zip(record["tracks"], expected.boxes, strict=True):
            assert (track["name"], track["order"], track["unit"]) == (name, expected.order, expected.unit)
            assert list(track["boxes"]) == list(boxes)
            for frame, box in boxes.items():
                assert track["boxes"][frame] == pytest.approx(box)
    assert [str(finding) for finding in check_meta(out.with_suffix(".json"), workers=1).findings] == []


def nearly_right(node: Any, rng: random.Random) -> Any:
    """A document with one of its values, at any depth, exchanged for another kind of value."""
    members = list(node.items() if isinstance(node, dict) else enumerate(node)) if isinstance(node, dict | list) else []
    if not members or rng.random() < 0.1:
        return rng.choice(VALUES)
    key, member = rng.choice(members)
    changed = nearly_right(member, rng)
    if isinstance(node, dict):
        return {**node, key: changed}
    return [*node[:key], changed, *node[key + 1 :]]


def broken(content: bytes, path: Path) -> Iterator[bytes]:
    for seed in range(MUTATIONS):
        yield mutated(content, random.Random(seed))
        if path.suffix == ".json":
            yield json.dumps(nearly_right(json.loads(content), random.Random(seed))).encode()


@pytest.mark.parametrize("miniature", MINIATURES, ids=lambda one: one.kind)
def test_broken_files_are_read_or_refused_by_name(miniature: Miniature, tmp_path: Path) -> None:
    source = miniature.write(tmp_path)
    reader = import_module(f"internvl_chat.data.converters.{miniature.kind.replace('-', '_')}")
    texts = [path for path in sorted(tmp_path.rglob("*")) if path.suffix in MUTABLE]
    outcomes = set()
    for path in texts:
        sound = path.read_bytes()
        for content in broken(sound, path):
            path.write_bytes(content)
            try:
                options = Conversion(tmp_path, QUESTION)
                list(reader.records(source, options))
                faults = options.faults
            except UserError as error:
                faults = [error]
            assert all(str(tmp_path) in str(fault) for fault in faults)
            outcomes.add("refused" if faults else "read")
        path.write_bytes(sound)
    assert outcomes == {"read", "refused"}


def test_captions_of_the_users_come_first(tmp_path: Path) -> None:
    miniature = next(one for one in MINIATURES if one.kind == "mot")
    source = miniature.write(tmp_path)
    (tmp_path / "captions.json").write_text('{"captions": {"MOT-02-5": ["a car parks", "a red car"]}}')
    out = tmp_path / "out.jsonl"
    assert convert(miniature, source, tmp_path, out, "--captions", str(tmp_path / "captions.json")) == 0
    said = [json.loads(line)["conversations"][1]["value"] for line in out.read_text().splitlines()]
    assert said == ["walker", "a car parks", "a red car"]


def test_captions_that_reach_no_object_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miniature = next(one for one in MINIATURES if one.kind == "mot")
    source = miniature.write(tmp_path)
    out, captions = tmp_path / "out.jsonl", tmp_path / "captions.json"
    captions.write_text('{"captions": {"MOT-02-5": ["a car"], "MOT-2-2": ["a walker"]}}')
    assert convert(miniature, source, tmp_path, out, "--captions", str(captions)) == 0
    said = capsys.readouterr().err
    assert (
        f"warning: 1 id of {captions}: no object is called so, such as 'MOT-2-2'; objects have ids such as 'MO" in said
    )
    out.unlink()
    captions.write_text('{"captions": {"MOT-2-2": ["a walker"]}}')
    assert convert(miniature, source, tmp_path, out, "--captions", str(captions)) == 1
    assert (
        "none of its ids is an object's, such as 'MOT-2-2'; objects have ids such as 'MOT-02-2'"
        in capsys.readouterr().err
    )
    assert not out.exists()


def test_folders_of_frames_of_one_name_have_ids_and_captions_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder a clip, its frames in a folder below that is called the same everywhere, numbered from 1."""
    rows = ["video,object,frame,x,y,w,h"]
    for clip in ("a", "b"):
        (tmp_path / clip / "frames").mkdir(parents=True)
        for number in range(1, 4):
            Image.new("RGB", (64, 48)).save(tmp_path / clip / "frames" / f"{number}.png")
        rows += [f"{clip}/frames,toy,{number},5,6,20,15" for number in (1, 3)]
    (tmp_path / "boxes.csv").write_text("\n".join(rows) + "\n")
    out, meta, captions = (tmp_path / name for name in ("out.jsonl", "meta.json", "captions.json"))
    argv = ["convert-data", "--from", "boxes-csv", tmp_path / "boxes.csv", "--interpolate", "--out", out]
    argv += ["--meta_out", meta]
    assert main(list(map(str, argv))) == 1
    assert "has no text to learn: give it a caption or a label there, or --captions with 'a/frames-toy'" in (
        capsys.readouterr().err
    )
    captions.write_text('{"captions": {"a/frames-toy": ["one"], "b/frames-toy": ["two"]}}')
    assert main([*map(str, argv), "--captions", str(captions)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    said = [(record["id"], record["conversations"][1]["value"]) for record in records]
    assert said == [("a/frames-toy-0", "one"), ("b/frames-toy-0", "two")]
    # Of a clip that shares one id, all others have the folder too.
    sound = (tmp_path / "boxes.csv").read_text()
    (tmp_path / "boxes.csv").write_text(f"{sound}b/frames,cap,1,5,6,20,15\n")
    captions.write_text('{"captions": {"a/frames-toy": ["one"], "b/frames-toy": ["two"], "b/frames-cap": ["three"]}}')
    assert main([*map(str, argv), "--captions", str(captions)]) == 0
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()][2:] == ["b/frames-cap-0"]
    (tmp_path / "boxes.csv").write_text(sound)
    captions.write_text('{"captions": {"a/frames-toy": ["one"], "b/frames-toy": ["two"]}}')
    capsys.readouterr()
    assert main(["check", str(meta), "--workers", "1"]) == 1
    assert "has a box at 3; expected 0 to 2; are they counted from 1?" in capsys.readouterr().out
    assert main([*map(str, argv), "--captions", str(captions), "--first_frame", "1"]) == 0
    assert main(["check", str(meta), "--workers", "1"]) == 0


@pytest.mark.parametrize(
    ("kind", "name", "old", "new", "said"),
    [
        ("hcstvg", "valv2.json", '"st_frame": 3', '"st_frame": 6', "valv2.json:2: 12_walk.mp4: has a box on frame 7"),
        ("hcstvg", "valv2.json", '"12_walk.mp4"', '"13.mp4"', "valv2.json:2: 13.mp4: its video"),
        ("hcstvg", "valv2.json", '"English"', '"Chinese"', "'English' is None: expected a text"),
        (
            "mevis",
            "meta_expressions.json",
            '"anno_id": [\n      3\n     ]',
            '"anno_id": [4]',
            "no list of masks for annotation 4",
        ),
        ("mevis", "mask_dict.json", '"counts": "', '"counts": "0', "'counts' are no run lengths"),
        ("mevis", "mask_dict.json", "null,", "", "has 3 masks for annotation"),
        (
            "vid-sentence",
            "Data/VID/annSamples/train_ann_list_v2.txt",
            "2,a fox",
            "3,a fox",
            "numbers have neither 0 nor 2",
        ),
        (
            "vid-sentence",
            "Data/VID/annSamples/train_ann_list_v2.txt",
            "2,a fox",
            f"{'2' * 5000},a fox",
            "have neither 0 nor 2, the number of objects",
        ),
        ("vid-sentence", "Data/VID/annSamples/train_valid_list.txt", "v3,4", "v3,5", "v3.js has no object '5'"),
        ("a2d-sentences", "a2d_test.json", '"xyz_0",\n  5,', '"xyz_1",\n  5,', "xyz_1 holds no masks"),
        ("a2d-sentences", "a2d_test.json", "3\n", "true\n", "expected [text, video, frame, instance]"),
        ("videoref", "nlp.json", '"00005.jpg"', '"00009.jpg"', "nlp.json:2: "),
        ("videoref", "nlp.json", "HC-STVG/frames/x", "../x", "leaves the root"),
        ("mot", "MOT-02/gt/gt.txt", "3,2,14", "9,2,14", "has a box on frame 8, counted from 0, of 3 frames"),
        ("mot", "MOT-02/gt/labels.txt", "\ncar", "", "gt.txt:3: class 3 is not in gt/labels.txt, which has 2"),
        ("mot", "MOT-02/gt/gt.txt", "1,5,40", "one,5,40", "gt.txt:3: 'one' is no number"),
        ("mot", "MOT-02/gt/gt.txt", "30,1,1,0.9", "30,1,1.7,0.9", "gt.txt:1: class 1.7 is expected to be whole"),
        ("cvat", "annotations.xml", 'ytl="20" ', "", "annotations.xml:6: a box without ytl"),
        (
            "cvat",
            "annotations.xml",
            'xbr="30"',
            'xbr="30" rotation="90.00"',
            "xml:6: the box on frame 1 is turned",
        ),
        (
            "cvat",
            "annotations.xml",
            "<size>7</size>",
            "<size>7</size><original_size><width>640</width><height>360</height></original_size>",
            "track 0: says 640 x 360 pixels, ",
        ),
        (
            "cvat",
            "annotations.xml",
            "<annotations>",
            "<!DOCTYPE a><annotations>",
            "annotations.xml:2: has a document type",
        ),
        ("cvat", "annotations.xml", "<track ", "<source>b.mp4</source><track ", "names a second video, 'b.mp4'"),
        (
            "cvat",
            "annotations.xml",
            'xbr="30"',
            'xbr="3"',
            "track 0: the box on frame 1, counted from 0, is 10, 20, 3, 40",
        ),
        ("cvat", "annotations.xml", "</track>", "</trak>", "annotations.xml:10: is no valid XML"),
        ("mgit", "attribute/groundtruth/002.txt", "12,5,20", "12;5;20", "groundtruth/002.txt:2: holds '12;5;20,30.5'"),
        ("mgit", "attribute/groundtruth/013.txt", "1,2,30,40\n", "", "has 1 lines for the 2 frames"),
        ("mgit", "attribute/absent/002.txt", "0\n0\n", "0\n", "002.txt: has 3 labels for the 4 frames"),
        ("mgit", "attribute/absent/002.txt", "0\n0\n1\n1\n", "", "absent/002.txt: is empty"),
        ("mgit", "attribute/absent/002.txt", "1\n1", "1\nx", "absent/002.txt:4: holds 'x'"),
        ("boxes-csv", "boxes.csv", "cx,cy", "cx,zy", "boxes.csv:1: has the columns"),
        ("boxes-csv", "boxes.csv", "clip.mp4,3,a", "clip.mp4,1,a", "boxes.csv:3: object 'a' has two boxes"),
        ("boxes-csv", "boxes.csv", "clip.mp4,3,a", "clip.mp4,3,", "boxes.csv:3: 'object' is empty"),
        ("boxes-csv", "boxes.csv", "54,50", "54;50", "boxes.csv:3: has more or fewer values"),
        (
            "label-studio",
            "export.json",
            '"rotation": 0',
            '"rotation": 9',
            "export.json:2: the box on frame 1 is turned",
        ),
        ("yolo-tracks", "labels/clip_1.txt", "0 0.25", "4 0.25", "clip_1.txt:2: class 4 is not in classes.txt"),
        (
            "coco-vid",
            "coco_vid.json",
            '"video_id": 1,\n   "frame_id": 1',
            '"video_id": 2,\n   "frame_id": 1',
            "image 2 is of video 2, and others in ",
        ),
        (
            "coco-vid",
            "coco_vid.json",
            '"frame_id": 0,',
            '"frame_id": 0, "width": 640, "height": 360,',
            "says 640 x 360",
        ),
        ("coco-vid", "coco_vid.json", '"image_id": 2', '"image_id": 7', "annotation 2: names image 7"),
        ("coco-vid", "coco_vid.json", "v7/f10.png", "v7/f11.png", "v7/f11.png is not there"),
    ],
)
def test_what_is_broken_is_told(
    kind: str, name: str, old: str, new: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miniature = next(one for one in MINIATURES if one.kind == kind)
    source, path = miniature.write(tmp_path), tmp_path / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert convert(miniature, source, tmp_path, tmp_path / "out.jsonl") == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_rows_of_mot_without_a_class_are_objects(tmp_path: Path) -> None:
    miniature = next(one for one in MINIATURES if one.kind == "mot")
    source = miniature.write(tmp_path)
    (tmp_path / "MOT-02" / "gt" / "gt.txt").write_text("1,2,10,11,20,30,1\n2,2,10,11,20,30,1\n")
    for labels in ("walker\n", None):
        if labels is None:
            (tmp_path / "MOT-02" / "gt" / "labels.txt").unlink()
        assert convert(miniature, source, tmp_path, tmp_path / "out.jsonl") == 0
        assert json.loads((tmp_path / "out.jsonl").read_text())["tracks"][0]["name"] == "object"


def test_a_stated_size_is_that_of_the_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miniature = next(one for one in MINIATURES if one.kind == "mot")
    source, info = miniature.write(tmp_path), tmp_path / "MOT-02" / "seqinfo.ini"
    info.write_text("[Sequence]\nname=MOT-02\nimWidth=112\nimHeight=80\n")
    assert convert(miniature, source, tmp_path, tmp_path / "out.jsonl") == 0
    record = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert (record["width"], record["height"]) == (112, 80)
    halved = "[Sequence]\nimWidth=56\nimHeight=40\n"
    info.write_text(halved)
    assert convert(miniature, source, tmp_path, tmp_path / "out.jsonl") == 1
    assert "says 56 x 40 pixels, " in capsys.readouterr().err
    for silent in ("[a]\n", "name=a\n", "[Sequence]\nname=a\n", halved.replace("56", "-1"), "[Sequence]\nimWidth=x\n"):
        info.write_text(silent)
        assert convert(miniature, source, tmp_path, tmp_path / "out.jsonl") == 0


def test_masks_are_as_large_as_their_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miniature = next(one for one in MINIATURES if one.kind == "mevis")
    source = miniature.write(tmp_path)
    for path in (tmp_path / "JPEGImages" / "v1").iterdir():
        Image.new("RGB", (56, 40)).save(path)
    assert convert(miniature, source, tmp_path, tmp_path / "out.jsonl") == 1
    assert re.search(r"v1, expression 0: says 112 x 80 pixels, .*v1 has 56 x 40", capsys.readouterr().err)


def test_sentences_of_one_object_are_answers_of_their_own(tmp_path: Path) -> None:
    miniature = next(one for one in MINIATURES if one.kind == "vid-sentence")
    source = miniature.write(tmp_path)
    with (tmp_path / "Data/VID/annSamples/train_ann_list_v2.txt").open("a") as file:
        file.write("1,it does not move\n")
    assert convert(miniature, source, tmp_path, tmp_path / "out.jsonl") == 0
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(r["id"], r["conversations"][1]["value"]) for r in records] == [
        ("train-1-0", "a still fox"),
        ("train-1-1", "it does not move"),
        ("train-2-0", "a fox, red, runs right"),
    ]


def test_absences_that_a_source_states_are_no_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").touch()
    rows = ["a.mp4,1,cup,0,10,20,30,40,it stands", "a.mp4,1,,1,,,,,", "a.mp4,1,,9,50,20,70,40,"]
    (record,) = convert_table(tmp_path, rows, "--interpolate")[1]
    assert record["tracks"][0]["interpolate"] is False and list(record["tracks"][0]["boxes"]) == ["0", "9"]
    assert "key frames" not in capsys.readouterr().err


def test_all_faults_of_a_source_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miniature = next(one for one in MINIATURES if one.kind == "mot")
    source = miniature.write(tmp_path)
    path = tmp_path / "MOT-02" / "gt" / "gt.txt"
    path.write_text("x,2,1,1,1,1\n1,2,10,11,20,30,1,1\n1,2\n2,3,1,1,nan,1\n")
    assert convert(miniature, source, tmp_path, tmp_path / "out.jsonl") == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition("gt.txt:")[2][0] for line in lines] == ["1", "3", "4"]


def test_every_sequence_of_mgit_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="MGIT's texts need requirements/mgit.txt")
    miniature = next(one for one in MINIATURES if one.kind == "mgit")
    source = miniature.write(tmp_path)
    (tmp_path / "attribute/groundtruth/002.txt").write_text("1,1,x,1\n2,2,5,5\n3,3\n4,4,5,5\n")
    book = openpyxl.load_workbook(tmp_path / "mgit_nlp/013.xlsx")
    book.active.delete_rows(3)
    book.active["O2"] = 7
    book.save(tmp_path / "mgit_nlp/013.xlsx")
    assert convert(miniature, source, tmp_path, tmp_path / "out.jsonl") == 1
    said = capsys.readouterr().err
    for part in ("002.txt:1: 'x' is no number", "002.txt:3: holds '3,3'", "column 15 of the last of 1 rows holds 7"):
        assert part in said
    assert convert(miniature, tmp_path, tmp_path, tmp_path / "out.jsonl") == 1
    assert "expected a split's folder, such as MGIT/data/train" in capsys.readouterr().err


def test_a_folder_of_other_frames_than_the_source_counts_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miniature = next(one for one in MINIATURES if one.kind == "mevis")
    source = miniature.write(tmp_path)
    (source / "JPEGImages" / "v1" / "00001.jpg").unlink()
    assert convert(miniature, source, tmp_path, tmp_path / "out.jsonl") == 1
    assert "counts 4 frames" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "name", "old", "new", "said"),
    [
        ("hcstvg", "valv2.json", '"img_num": 7', '"img_num": 12', "counts 12 frames, .*12_walk.mp4 holds 7"),
        ("hcstvg", "valv2.json", '"img_num": 7', '"img_num": 9', ""),
        ("hcstvg", "valv2.json", '"st_frame": 3', '"st_frame": 6', "has a box on frame 7, counted from 0, of 7 frames"),
        ("hcstvg", "valv2.json", '"img_size": [', '"img_size": [5, ', "'img_size' is .*expected height and width"),
        (
            "label-studio",
            "export.json",
            '"framesCount": 7',
            '"framesCount": 10',
            "counts 10 frames, .*clip.mp4 holds 7",
        ),
    ],
)
def test_frames_that_a_source_counts_are_held_against_those_of_its_video(
    kind: str, name: str, old: str, new: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miniature = next(one for one in MINIATURES if one.kind == kind)
    source, path = miniature.write(tmp_path), tmp_path / name
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    assert convert(miniature, source, tmp_path, tmp_path / "out.jsonl") == bool(said)
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize(("kind", "video"), [("hcstvg", "video/12_walk.mp4"), ("yolo-tracks", "clip.mp4")])
def test_a_name_that_two_videos_have_is_told(
    kind: str, video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miniature = next(one for one in MINIATURES if one.kind == kind)
    source = miniature.write(tmp_path)
    (tmp_path / "old").mkdir()
    shutil.copy(tmp_path / video, tmp_path / "old")
    assert convert(miniature, source, tmp_path, tmp_path / "out.jsonl") == 1
    assert "give a --root with one of them" in capsys.readouterr().err


def test_xml_is_read_as_utf_8_whatever_it_says(tmp_path: Path) -> None:
    miniature = next(one for one in MINIATURES if one.kind == "cvat")
    source = miniature.write(tmp_path)
    source.write_text(source.read_text().replace('encoding="utf-8"', 'encoding="ttf-8"'))
    assert convert(miniature, source, tmp_path, tmp_path / "out.jsonl") == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1


def test_cvats_object_stays_absent_where_several_boxes_in_a_row_say_so(tmp_path: Path) -> None:
    miniature = next(one for one in MINIATURES if one.kind == "cvat")
    source = miniature.write(tmp_path)
    lines = source.read_text().splitlines()
    gone = next(line for line in lines if 'outside="1"' in line)
    lines.insert(lines.index(gone), gone.replace('frame="5"', 'frame="4"'))
    source.write_text("\n".join(lines))
    assert convert(miniature, source, tmp_path, tmp_path / "out.jsonl") == 0
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert list(record["tracks"][0]["boxes"]) == ["1", "2", "3", "6"]


def test_labels_that_are_learnt_for_want_of_captions_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miniature = next(one for one in MINIATURES if one.kind == "boxes-csv")
    source = miniature.write(tmp_path)
    out, captions = tmp_path / "out.jsonl", tmp_path / "captions.json"
    header, first, second, third = source.read_text().splitlines()
    source.write_text("\n".join([f"{header},caption", f"{first},", f"{second},", f"{third},it sleeps\n"]))
    assert convert(miniature, source, tmp_path, out) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    bare = [r["id"] for r in records if r["conversations"][1]["value"] == r["tracks"][0]["name"]]
    told = "warning: 1 of 2 records have no caption, and their label is the answer that is learnt, such as 'dog' of"
    assert told in capsys.readouterr().err
    assert bare == ["clip-a-0"]
    captions.write_text(json.dumps({"captions": {"clip-a": ["it moves"]}}))
    assert convert(miniature, source, tmp_path, out, "--captions", str(captions)) == 0
    assert "have no caption" not in capsys.readouterr().err


def test_numbers_with_a_decimal_comma_are_told_with_their_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "boxes.csv").write_text("video;frame;x1;y1;x2;y2;label\na.mp4;0;1;2,5;30;40;cup\n")
    argv = ["convert-data", "--from", "boxes-csv", tmp_path / "boxes.csv", "--out", tmp_path / "out.jsonl"]
    assert main(list(map(str, argv))) == 1
    assert "boxes.csv:2: y1: '2,5' is no number: expected a decimal point, 2.5;" in capsys.readouterr().err


HEADER = "video,object,label,frame,x1,y1,x2,y2,caption"


def convert_table(folder: Path, rows: list[str], *flags: str, header: str = HEADER) -> tuple[int, list[Any]]:
    """The exit status, and the records of a table with these rows."""
    table, out = folder / "boxes.csv", folder / "out.jsonl"
    out.unlink(missing_ok=True)
    table.write_text("\n".join([header, *rows]) + "\n")
    argv = [
        "convert-data",
        "--from",
        "boxes-csv",
        str(table),
        "--out",
        str(out),
        "--meta_out",
        str(out.with_suffix(".json")),
    ]
    status = main([*argv, *flags])
    return status, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def test_key_frames_without_a_box_end_a_track(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing glides into a corner: zeros and empty cells say absent, up to the next box."""
    (tmp_path / "a.mp4").touch()
    rows = ["a.mp4,1,cup,0,10,20,30,40,it stands", "a.mp4,1,,4,18,20,38,40,", "a.mp4,1,,5,,,,,", "a.mp4,1,,8,0,0,0,0,"]
    rows += ["a.mp4,1,,9,50,20,70,40,", "a.mp4,1,,11,54,20,74,40,"]
    status, (record,) = convert_table(tmp_path, rows, "--interpolate")
    assert status == 0 and list(record["tracks"][0]["boxes"]) == ["0", "1", "2", "3", "4", "9", "10", "11"]
    assert record["tracks"][0]["boxes"]["2"] == [14, 20, 34, 40]
    assert convert_table(tmp_path, [*rows[:2], *rows[3:]], "--interpolate") == (1, [])
    assert "'1' has a box on frame 4 and none on frame 8, counted from 0: expected a row" in capsys.readouterr().err


def test_tracks_that_may_be_key_frames_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").touch()
    rows = ["a.mp4,1,cup,0,10,20,30,40,it stands", "a.mp4,1,,9,18,20,38,40,"]
    assert convert_table(tmp_path, rows)[0] == 0
    told = "warning: 1 track may be key frames, such as that of 'a-1-0' with a box at 2 of 10 frames"
    assert told in capsys.readouterr().err
    assert convert_table(tmp_path, rows, "--interpolate")[0] == 0
    assert "key frames" not in capsys.readouterr().err


def test_videos_of_one_name_have_ids_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`clip.mkv` and `clip.webm`, `a.gif` with the object `b-1` and `a-b.webm` with the object `1`."""
    videos = {"clip.mkv": "1", "clip.webm": "1", "a.gif": "b-1", "a-b.webm": "1", "other.mp4": "1"}
    for video in videos:
        (tmp_path / video).touch()
    rows = [f"{video},{name},cup,0,1,2,30,40,of {video}" for video, name in videos.items()]
    ids = {record["id"]: record["video"] for record in convert_table(tmp_path, rows)[1]}
    assert list(ids) == ["clip.mkv-1-0", "clip.webm-1-0", "a.gif-b-1-0", "a-b.webm-1-0", "other-1-0"]
    assert list(ids.values()) == list(videos)


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [
        (f"{HEADER},x1", "a.mp4,1,cup,0,1,2,30,40,it stands,5", "boxes.csv:1: has the column 'x1' twice"),
        (f"{HEADER},caption", "a.mp4,1,cup,0,1,2,30,40,one,two", "boxes.csv:1: has the column 'caption' twice"),
        (HEADER, "a.mp4,1,cup,0,1_5,2,30,40,it stands", "boxes.csv:2: x1: '1_5' is no number"),
        (HEADER, "a.mp4,1,cup,0,1,,30,40,it stands", "boxes.csv:2: y1: '' is no number"),
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(
    header: str, row: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mp4").touch()
    assert convert_table(tmp_path, [row], header=header) == (1, [])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("apart", [";", "\t"])
def test_a_table_may_be_separated_by_semicolons_and_tabs(apart: str, tmp_path: Path) -> None:
    miniature = next(one for one in MINIATURES if one.kind == "boxes-csv")
    source = miniature.write(tmp_path)
    assert convert(miniature, source, tmp_path, tmp_path / "commas.jsonl") == 0
    kept = source.read_text().replace("a cat, grey", "a cat|grey").replace(",", apart).replace("|", ", ")
    source.write_text(kept)
    assert convert(miniature, source, tmp_path, tmp_path / "out.jsonl") == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "commas.jsonl").read_bytes()
