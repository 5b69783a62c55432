"""Situations from public bug reports, made by the programs of ../shared/cases: all end in the truth or one message."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from internvl_chat.__main__ import main
from internvl_chat.boxes import parse_box_text, save_boxes, thousandths_from_pixels
from internvl_chat.choices import PROMPT_FORMS
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.checking.check import check_meta
from internvl_chat.data.converters.forms.chats import swift_records
from internvl_chat.data.converters.forms.detection import coco_records
from internvl_chat.data.converters.forms.tracking import Question, got10k_records, lasot_records
from internvl_chat.data.media.sampling import clip_window, sample_frames
from internvl_chat.data.media.sources import Pictures, read_media_header, read_pictures
from internvl_chat.data.records.annotations import (
    caption_records,
    load_meta,
    read_captions,
    read_samples,
)
from internvl_chat.data.records.box_files import PrepareReport, find_videos, prepare_boxes, write_boxes_beside
from internvl_chat.data.records.intentvc import category_of
from internvl_chat.data.records.reader import RecordReader
from internvl_chat.data.records.tracks import boxes_at
from internvl_chat.files import write_json, write_jsonl
from internvl_chat.scoring.captions.caption_scores import score_captions
from internvl_chat.scoring.predictions import read_predictions
from tests.data.media.films import red_part
from tests.helpers import run_python, shared

pytestmark = pytest.mark.process


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


def faults_of(convert: Callable[..., Iterator[dict[str, Any]]], source: Path, *more: Any) -> tuple[list[Any], str]:
    """The records of a source, and everything that was said of the others."""
    faults: list[UserError] = []
    return list(convert(source, source if source.is_dir() else source.parent, *more, faults)), "\n".join(
        map(str, faults)
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("two_boxes", ""),
        ("left_over", "0 names and 1 boxes more than the messages"),
        ("flipped", r"\[160.0, 200.0, 80.0, 40.0\] has no area"),
        ("outside", "reaches beyond the picture: expected pixels of 800 x 400"),
        ("thin", ""),
        ("point", "expected boxes of four numbers"),
        ("legacy", "expected an object with 'ref' and 'bbox'"),
        ("norm1000", "'bbox_type' real or norm1"),
        ("no_objects", "'<ref-object>' is left in the text"),
        ("rejected", "has 'rejected_response'"),
    ],
)
def test_swift_boxes(name: str, said: str, tmp_path: Path) -> None:
    records, message = faults_of(swift_records, made("swift_coco_boxes", tmp_path) / f"s_{name}.jsonl")
    assert bool(records) != bool(said) and bool(re.search(said, message))
    if name == "thin":
        assert records[0]["conversations"][1]["value"] == "<box>[[125, 100, 126, 500]]</box>"


def test_coco_faults(tmp_path: Path) -> None:
    folder = made("swift_coco_boxes", tmp_path)
    with pytest.raises(UserError, match="'</ref> <box>' holds </ref>"):
        list(coco_records(folder / "c_faults.json", folder))
    for name in ("faults", "float_size", "no_size", "text_ids"):
        content = json.loads((folder / f"c_{name}.json").read_text())
        content["categories"][2]["name"] = "bee"
        (folder / f"c_{name}.json").write_text(json.dumps(content))
        if name != "faults":
            with pytest.raises(UserError, match=f"c_{name}.json: .*expected a whole number"):
                list(coco_records(folder / f"c_{name}.json", folder))
    records, message = faults_of(coco_records, folder / "c_faults.json")
    answers = [re.findall(r"<ref>.*</box>", record["conversations"][1]["value"]) for record in records]
    assert not message and answers == [
        ["<ref>dog</ref><box>[[32, 128, 1000, 898]]</box>", "<ref>ant</ref><box>[[125, 250, 126, 251]]</box>"],
        ["<ref>bee</ref><box>[[12, 25, 38, 75]]</box>"],
    ]


def test_coco_leaves_out_the_pictures_that_have_a_fault_and_no_other(tmp_path: Path) -> None:
    def box(picture: int, category: int, *row: float) -> dict[str, Any]:
        return {"image_id": picture, "category_id": category, "bbox": list(row)}

    sizes = {"width": 80, "height": 40}
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", **sizes} for n in (1, 2, 3, 4, 4)],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "<box>"}, {"id": 3, "name": "cat"}, {"id": 3}],
        "annotations": [
            *(box(1, 1, 8, 4, 8, 4), box(2, 1, 8, 4, 8, 4), box(2, 1, 70, 4, 80, 4), box(3, 1, 8, 4, 8, 4)),
            *(box(3, 2, 8, 4, 8, 4), box(4, 1, 8, 4, 8, 4), box(9, 1, 8, 4, 8, 4)),
        ],
    }
    source = tmp_path / "coco.json"
    write_json(source, content)
    # A picture whose answer would lack an object is not kept with the others of its objects.
    records, message = faults_of(coco_records, source)
    assert [record["id"] for record in records] == [1]
    said = [
        "'<box>' holds <box>",
        "'id' 3 comes twice",
        "'id' 4 comes twice",
        "reaches beyond",
        "image 9",
        "category 2",
    ]
    assert [part in line for part, line in zip(said, message.splitlines(), strict=True)] == [True] * 6
    with pytest.raises(UserError, match="'<box>' holds <box>"):
        list(coco_records(source, tmp_path))


def test_exif_photo_through_converters(tmp_path: Path) -> None:
    folder = made("exif_photo", tmp_path)
    (record,) = coco_records(folder / "coco.json", folder)
    assert "[[100, 50, 500, 300]]" in record["conversations"][1]["value"]
    (record,) = swift_records(folder / "swift.jsonl", folder)
    assert "[[100, 50, 500, 300]]" in record["conversations"][1]["value"]
    stored = json.loads((folder / "coco.json").read_text())
    stored["images"][0] |= {"width": 400, "height": 200}
    (folder / "stored.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="says 400 x 200, the picture is shown at 200 x 400"):
        list(coco_records(folder / "stored.json", folder))


def test_lasot_got10k(tmp_path: Path) -> None:
    folder = made("lasot_got10k", tmp_path)
    question = Question(frozenset({"coordinates"}), {})
    records, message = faults_of(lasot_records, folder / "lasot", question)
    assert message.count("\n") == 0 and "bus-1: has 7 absence labels for 6 boxes" in message
    tracks = {record["id"]: record["tracks"][0] for record in records}
    assert (
        len(tracks) == 7 and tracks["bird-1-0"]["absent"] == [3] and tracks["dog-1-0"]["boxes"][0] == [10, 10, 30, 30]
    )
    got, message = faults_of(got10k_records, folder / "got", question)
    assert len(got) == 2 and not message
    write_jsonl(folder / "lasot.jsonl", records)
    write_jsonl(folder / "got.jsonl", got)
    entries = {
        name: {"root": str(folder / name), "annotation": str(folder / f"{name}.jsonl")} for name in ("lasot", "got")
    }
    (folder / "meta.json").write_text(json.dumps(entries))
    report = check_meta(folder / "meta.json", workers=1)
    lines = [json.loads(line)["id"] for line in (folder / "lasot.jsonl").read_text().splitlines()]
    said = {(lines[f.line - 1] if f.file.stem == "lasot" else f.line, f.code) for f in report.findings}
    assert said == {("tiger-6-0", "track-degenerate"), (2, "track-degenerate")}
    for sample in samples_of(folder):
        shown(sample, [0, 2, 3])


def test_names_and_folders(tmp_path: Path) -> None:
    folder = made("names_and_folders", tmp_path)
    assert category_of("traffic-light-1") == "traffic-light"
    assert len(prepared(folder).written) == 1
    captions = read_captions(folder / "train.json")
    (record,) = caption_records(captions, PROMPT_FORMS["coordinates"])
    assert "focus on traffic-light" in record["conversations"][0]["value"]
    sample = RecordReader(folder).read(record, "here")
    assert sample.video_path is not None and sample.video_path.is_file() and sample.object_name == "traffic-light"
    (record,) = lasot_records(folder / "lasot", folder / "lasot", Question(frozenset({"coordinates"}), {}))
    assert record["tracks"][0]["name"] == "traffic-light" and len(record["tracks"][0]["boxes"]) == 6


def test_track_names(tmp_path: Path) -> None:
    folder = made("track_names", tmp_path)
    (entry,) = load_meta(folder / "meta.json")
    taken = []
    for line in (folder / "a.jsonl").read_text().splitlines():
        try:
            taken.append(entry.reader().read(json.loads(line), "here").object_name)
        except UserError as error:
            assert re.search("the name .*(holds|is empty|characters)", str(error))
    assert taken == ["狗", "{object}", 'dog\'s "toy"']
    assert codes(folder) == {"record-keys": 8}


def test_chinese_scores(tmp_path: Path) -> None:
    folder = made("chinese_scores", tmp_path)
    references = read_captions(folder / "refs.json")
    scores = {
        name: score_captions(read_predictions(folder / f"{name}.json"), references, java=False).corpus()
        for name in ("near", "half", "far")
    }
    for metric in ("BLEU-4", "ROUGE-L"):
        near, half, far = (of_run[f"{metric} (characters) (no Java)"] for of_run in scores.values())
        assert near > 0.99 and 0.6 < half < 0.95 and far < 0.3
    english = read_captions(folder / "en_refs.json")
    with pytest.raises(UserError, match="e-4: a caption of 30000 characters"):
        score_captions(read_predictions(folder / "odd.json"), english, java=False)
    with pytest.raises(UserError, match="dupkeys.json: .*names 'e-0' twice"):
        read_predictions(folder / "dupkeys.json")
    argv = ["score", "--references", folder / "en_refs.json", "--no_java", "--resamples", 5, "--predictions"]
    assert main([*map(str, argv), str(folder / "missing.json")]) == 1


def test_swift_boxes_counted_in_another_size(tmp_path: Path) -> None:
    folder = made("swift_coco_boxes", tmp_path)
    record = json.loads((folder / "s_two_boxes.jsonl").read_text())
    record["objects"] |= {"width": [1600], "height": [800]}
    write_jsonl(folder / "sized.jsonl", [record])
    records, message = faults_of(swift_records, folder / "sized.jsonl")
    assert not records and "'objects' has height, width, which nobody would heed" in message


def test_swift_pixel_text(tmp_path: Path) -> None:
    """One box that may be either is worth a look; ten that keep within their pictures' pixels are an error."""
    folder = made("swift_coco_boxes", tmp_path)
    (record,) = swift_records(folder / "s_pixel_text.jsonl", folder)
    for count, code in ((1, "box-unit-doubt"), (20, "box-unit")):
        records = [{**record, "id": n} for n in range(count)]
        for n, one in enumerate(records):
            answer = f"<box>[[{80 + n}, {40 + n}, {760 + n}, {380 + n}]]</box>"
            one["conversations"] = [record["conversations"][0], {"from": "gpt", "value": answer}]
        write_jsonl(folder / "a.jsonl", records)
        write_json(folder / "meta.json", {"d": {"root": str(folder), "annotation": str(folder / "a.jsonl")}})
        assert codes(folder) == {code: 1}
    records[0]["conversations"] = [record["conversations"][0], {"from": "gpt", "value": "<box>[[1, 2, 900, 40]]</box>"}]
    write_jsonl(folder / "a.jsonl", records[:1])
    assert not codes(folder)


@pytest.mark.parametrize(
    "answer",
    [
        '[{"bbox_2d": [80, 40, 760, 390], "label": "sheep"}]',
        "sheep [0.1, 0.2, 0.95, 0.975]",
        "sheep [[100,100,950,975]]",
        "<p>sheep</p> {<10><10><95><97>}",
        "<|begin_of_box|>[[1, 2, 3, 4]]<|end_of_box|>",
        '<point x="10.1" y="3.2">sheep</point>',
        "<loc0100><loc0100><loc0950><loc0975> sheep",
        "<loc_1><loc_2><loc_3><loc_4> sheep",
        "<grounding><phrase>sheep</phrase><object><patch_index_0044><patch_index_0863></object>",
        "<region1> is a sheep",
        "the sheep [SEG]",
    ],
)
def test_boxes_of_other_projects(answer: str, tmp_path: Path) -> None:
    chat = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": answer}]
    write_jsonl(tmp_path / "a.jsonl", [{"id": 0, "conversations": chat}])
    write_json(tmp_path / "meta.json", {"d": {"root": str(tmp_path), "annotation": str(tmp_path / "a.jsonl")}})
    assert codes(tmp_path) == {"text-foreign": 1}
