"""Records of every kind to samples, and what is no record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from internvl_chat.contracts import Sample, TrackFile, Turn, UserError
from internvl_chat.data.records.annotations import DatasetEntry, load_meta, read_mix, read_samples
from internvl_chat.data.records.reader import RecordReader
from internvl_chat.files import split_records

TRACK = {"name": "dog", "boxes": {"0": [1, 2, 3, 4]}, "unit": "pixels", "order": "xywh"}
BOX_QUESTION = "<video>\nDescribe this video in one sentence, and focus on dog located in the coordinate list."


def said(question: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": "yes"}]


def read(root: Path, question: str = "what?", /, **fields: Any) -> Sample:
    return RecordReader(root).read({"id": 7, "conversations": said(question), **fields}, "a.jsonl:3")


def test_text_alone(tmp_path: Path) -> None:
    turns = [{"from": "system", "value": "Be brief."}, *said("why?")]
    sample = read(tmp_path, conversations=turns)
    assert (sample.id, sample.image_paths, sample.video_path, sample.tracks) == ("7", (), None, ())
    assert sample.turns == (Turn("system", "Be brief."), Turn("human", "why?"), Turn("gpt", "yes"))
    assert sample.source == "a.jsonl:3"


def test_one_image_may_leave_its_placeholder_out(tmp_path: Path) -> None:
    assert read(tmp_path, "what?", image="a/b.jpg").image_paths == (tmp_path / "a/b.jpg",)
    assert read(tmp_path, "what?", image="b.jpg").turns[0].text == "<image>\nwhat?"
    assert read(tmp_path, "what is <image>?", image="b.jpg").turns[0].text == "what is <image>?"
    turns = [{"from": "system", "value": "Be brief."}, *said("why?")]
    assert read(tmp_path, image="b.jpg", conversations=turns).turns[1].text == "<image>\nwhy?"


def test_several_images_keep_their_order(tmp_path: Path) -> None:
    sample = read(tmp_path, "<image> or <image>?", image=["b.jpg", "a.jpg"])
    assert sample.image_paths == (tmp_path / "b.jpg", tmp_path / "a.jpg")
    assert read(tmp_path, "which?", image=["b.jpg", "a.jpg"]).turns[0].text == "which?"


def test_a_video_with_a_clip(tmp_path: Path) -> None:
    sample = read(tmp_path, "<video>\nwhat?", video="a/b.mp4", clip=[1, 2.5])
    assert (sample.video_path, sample.clip_s, sample.tracks) == (tmp_path / "a/b.mp4", (1.0, 2.5), ())


def test_the_challenges_form_leaves_the_category_out(tmp_path: Path) -> None:
    sample = read(tmp_path, "<video>\nwhat?", video="dog-4/dog-4.mp4")
    assert sample.video_path == tmp_path / "dog" / "dog-4" / "dog-4.mp4"
    (tmp_path / "dog-4").mkdir()
    (tmp_path / "dog-4" / "dog-4.mp4").touch()
    assert read(tmp_path, "<video>\nwhat?", video="dog-4/dog-4.mp4").video_path == tmp_path / "dog-4" / "dog-4.mp4"


def test_boxes_beside_a_video_are_its_track(tmp_path: Path) -> None:
    npy = tmp_path / "pool" / "pool-4" / "object_bboxes.npy"
    npy.parent.mkdir(parents=True)
    assert read(tmp_path, "<video>\nwhat?", video="pool-4/pool-4.mp4").tracks == ()
    npy.with_suffix(".txt").touch()
    asked = read(tmp_path, "<video>\nwhat?", video="pool-4/pool-4.mp4").tracks
    npy.with_suffix(".txt").unlink()
    npy.touch()
    found = read(tmp_path, "<video>\nwhat?", video="pool-4/pool-4.mp4").tracks
    assert asked == found == (TrackFile("pool ball", npy),)


def test_a_question_about_a_box_expects_one(tmp_path: Path) -> None:
    assert read(tmp_path, BOX_QUESTION, video="clip.mp4").tracks == (TrackFile("clip", tmp_path / "object_bboxes.npy"),)


def test_tracks_of_the_record_go_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "object_bboxes.npy").touch()
    sample = read(tmp_path, "<video>\nwhat?", video="clip.mp4", tracks=[TRACK, {**TRACK, "name": "cat"}])
    assert [track.name for track in sample.tracks] == ["dog", "cat"] and sample.object_name == "dog"
    assert read(tmp_path, image="a.jpg", tracks=[TRACK]).object_name == "dog"


def test_the_readers_settings_go_with_each_sample(tmp_path: Path) -> None:
    reader = RecordReader(tmp_path, max_dynamic_patch=5, data_augment=True)
    sample = reader.read({"id": "x", "conversations": said("what?")}, "a.jsonl:1")
    assert (sample.max_dynamic_patch, sample.data_augment, sample.root) == (5, True, tmp_path)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"id": None}, "'id' is None"),
        ({"id": True}, "'id' is True"),
        ({"id": [1]}, "'id' is"),
        ({"conversations": []}, "'conversations' is"),
        ({"conversations": "why?"}, "'conversations' is"),
        ({"conversations": [{"from": "gpt", "text": "yes"}]}, "turn 1 is .*expected 'from' and 'value'"),
        ({"conversations": [{"from": "user", "value": "why?"}]}, "turn 1 is from 'user': expected one of system"),
        ({"conversations": [{"from": "human", "value": 3}]}, "'value' is 3: expected a text"),
        ({"conversations": [{"from": "human", "value": "\ud800"}]}, "half of a character pair"),
        ({"image": "a.jpg", "video": "a.mp4"}, "'image' and 'video'"),
        ({"image": []}, "'image' is an empty list"),
        ({"image": [3]}, "'image' is 3"),
        ({"image": None}, "'image' is None"),
        ({"image": ""}, "'image' is ''"),
        ({"image": "."}, "'image' is '.'"),
        ({"image": "a\0b.jpg"}, "'image' is"),
        ({"image": "a" * 300}, "too long"),
        ({"video": "b/" * 1500}, "too long"),
        ({"video": 3}, "'video' is 3"),
        ({"clip": [0, 1]}, "'clip' but no 'video'"),
        ({"video": "a.mp4", "clip": [2, 1]}, "'clip' is .*0 <= start < end"),
        ({"video": "a.mp4", "clip": [-1, 1]}, "'clip' is"),
        ({"video": "a.mp4", "clip": [0]}, "'clip' is"),
        ({"video": "a.mp4", "clip": ["0", "1"]}, "'clip' is"),
        ({"tracks": [TRACK]}, "'tracks' but neither"),
        ({"video": "a.mp4", "tracks": []}, "'tracks' is"),
        ({"video": "a.mp4", "tracks": ["dog"]}, "track 1 is 'dog'"),
        ({"video": "a.mp4", "tracks": [TRACK, {**TRACK, "name": " "}]}, "track 2: the name ' ' is empty"),
        ({"video": "a.mp4", "tracks": [{**TRACK, "unit": "metres"}]}, "'unit' is 'metres': expected one of pixels"),
        ({"video": "a.mp4", "tracks": [{**TRACK, "order": None}]}, "'order' is None"),
        ({"video": "a.mp4", "tracks": [{**TRACK, "by": "minute"}]}, "'by' is 'minute'"),
        ({"video": "a.mp4", "tracks": [{**TRACK, "colour": "red"}]}, "unknown keys .*colour"),
        ({"video": "a.mp4", "tracks": [{**TRACK, "boxes": []}]}, "'boxes' is empty"),
        ({"video": "a.mp4", "tracks": [{**TRACK, "boxes": 3}]}, "'boxes' is 3"),
        ({"video": "a.mp4", "tracks": [{**TRACK, "boxes": [[1, 2, 3]]}]}, "box 1 is .*four finite numbers"),
        ({"video": "a.mp4", "tracks": [{**TRACK, "boxes": [[1, 2, 3, True]]}]}, "box 1 is"),
        ({"video": "a.mp4", "tracks": [{**TRACK, "boxes": [[1, 2, 3, "4"]]}]}, "box 1 is"),
        ({"video": "a.mp4", "tracks": [{**TRACK, "boxes": [[1, 2, 3, float("nan")]]}]}, "box 1 is"),
        ({"video": "a.mp4", "tracks": [{**TRACK, "boxes": [[1, 2, 3, 10**400]]}]}, "box 1 is"),
        ({"video": "a.mp4", "tracks": [{**TRACK, "boxes": {"-1": [1, 2, 3, 4]}}]}, "key '-1': .*number of a frame"),
        ({"video": "a.mp4", "tracks": [{**TRACK, "boxes": {"0.5": [1, 2, 3, 4]}}]}, "key '0.5'"),
        ({"video": "a.mp4", "tracks": [{**TRACK, "boxes": {"1": [1] * 4, "01": [1] * 4}}]}, "names a frame twice"),
        ({"video": "a.mp4", "tracks": [{**TRACK, "absent": [-1]}]}, "'absent' is"),
        ({"video": "a.mp4", "width": 0, "height": 9, "tracks": [TRACK]}, "'width' and 'height'"),
        ({"video": "a.mp4", "width": 9, "tracks": [TRACK]}, "'width' and 'height'"),
        ({"image": "a.jpg", "tracks": [{**TRACK, "by": "second"}]}, "images have no time"),
    ],
)
def test_what_is_no_record_says_where_and_why(fields: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"a.jsonl:3: .*{expected}|a.jsonl:3: {expected}"):
        read(tmp_path, **fields)


OUTSIDE = ["../secret.mp4", "a/../../secret.mp4", "/etc/hostname", "out/x.mp4", "x.mp4"]


@pytest.mark.parametrize("path", [*OUTSIDE, "..-1/..-1.mp4", "-1/-1.mp4"])
def test_paths_stay_under_the_root_unless_allowed(path: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "x.mp4").symlink_to(tmp_path / "secret.mp4")
    with pytest.raises(UserError, match=r"a.jsonl:3: 'video' is .*'allow_outside_root'"):
        read(root, video=path)
    if path in OUTSIDE:
        with pytest.raises(UserError, match=r"a.jsonl:3: 'image' is .*'allow_outside_root'"):
            read(root, "<image><image>", image=["b.jpg", path])
    record = {"id": 1, "conversations": said("<video>\nwhat?"), "video": path}
    assert RecordReader(root, allow_outside_root=True).read(record, "a.jsonl:3").root is None


@pytest.mark.parametrize("url", ["https://a.org/x.jpg", "s3://bucket/x.jpg", "data:image/png;base64,AAAA"])
def test_urls_are_called_so(url: str, tmp_path: Path) -> None:
    chat = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a"}]
    with pytest.raises(UserError, match="here: 'image' is .*: is a URL: fetch the file"):
        RecordReader(tmp_path).read({"id": 0, "image": url, "conversations": chat}, "here")


def test_links_inside_the_root_and_a_root_that_is_a_link_are_fine(tmp_path: Path) -> None:
    (tmp_path / "disk" / "a").mkdir(parents=True)
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "b").symlink_to(tmp_path / "disk" / "a")
    assert read(tmp_path / "root", "<video>\nwhat?", video="b/x.mp4").root == tmp_path / "disk"


def test_boxes_that_link_out_of_the_root_are_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "boxes.npy").touch()
    (tmp_path / "root" / "object_bboxes.npy").symlink_to(tmp_path / "boxes.npy")
    with pytest.raises(UserError, match=r"a.jsonl:3: .*object_bboxes.npy: a link leads out"):
        read(tmp_path / "root", "<video>\nwhat?", video="x.mp4")


def entry_at(folder: Path, name: str, content: str, **fields: Any) -> DatasetEntry:
    """An entry of a meta JSON, read back from it."""
    (folder / name).write_text(content, encoding="utf-8")
    (folder / "meta.json").write_text(json.dumps({"set": {"root": str(folder), "annotation": name, **fields}}))
    return load_meta(folder / "meta.json")[0]


def lines(count: int) -> list[str]:
    return [json.dumps({"id": number, "conversations": said(f"why {number}?")}) for number in range(count)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", "\n".join(lines(3))),
        ("a.json", "\n".join(lines(3))),
        ("a.json", "[" + ",\n".join(lines(3)) + "]"),
        ("a.json", json.dumps([json.loads(line) for line in lines(3)], indent=2)),
        ("a.jsonl", "\ufeff" + "\r\n".join(lines(3)) + "\r\n"),
    ],
    ids=["jsonl", "lines in json", "list", "indented list", "windows"],
)
def test_lists_and_lines_are_read_alike(name: str, content: str, tmp_path: Path) -> None:
    samples = read_samples(entry_at(tmp_path, name, content))
    assert [sample.id for sample in samples] == ["0", "1", "2"]
    starts = [content[: content.index(f"why {n}?")].count("\n") + 1 for n in range(3)]
    depth = 5 if "  " in content else 0  # an indented record begins five lines before its question
    assert [sample.source for sample in samples] == [f"{tmp_path / name}:{line - depth}" for line in starts]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.jsonl", f"{lines(1)[0]}\n\n{{oops}}", 3),
        ("a.json", f"[{lines(1)[0]},\n{{oops}}]", 2),
        ("a.json", f"[{lines(1)[0]}\n{lines(1)[0]}]", 1),
        ("a.json", f"[{lines(1)[0]},\n3]", 2),
        ("a.jsonl", '{"id": NaN}', 1),
        ("a.jsonl", '{"id": ' + "[" * 40 + "]" * 40 + "}", 1),
        ("a.jsonl", "[" * 100_000, 1),
        ("a.json", "[\n" + "[" * 100_000, 2),
        ("a.json", f"[{lines(1)[0]}]\n[{lines(1)[0]}]", 2),
        ("a.jsonl", '{"id": ' + "9" * 5000 + "}", 1),
        ("a.jsonl", f'{lines(1)[0]}\n{{"id": "{"x" * 2**24}"}}', 2),
    ],
    ids=["line", "element", "comma", "number", "nan", "nested", "deep", "deep list", "two lists", "digits", "long"],
)
def test_what_is_no_json_is_told_by_line(name: str, content: str, line: int, tmp_path: Path) -> None:
    entry = entry_at(tmp_path, name, content)
    with pytest.raises(UserError, match=rf"{name}:{line}: ") as caught:
        read_samples(entry)
    assert len(str(caught.value)) < 500


def test_one_object_over_several_lines_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text(json.dumps({"clips": {"root": "."}}, indent=1))
    with pytest.raises(UserError, match="meta.json: is one JSON object, expected records"):
        list(split_records((tmp_path / "meta.json").read_text(), tmp_path / "meta.json"))


def test_a_length_that_disagrees_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(read_samples(entry_at(tmp_path, "a.jsonl", "\n".join(lines(3)), length=3))) == 3
    assert caplog.text == ""
    assert len(read_samples(entry_at(tmp_path, "a.jsonl", "\n".join(lines(3)), length=4))) == 3
    assert "holds 3 records, 'length' of 'set' says 4" in caplog.text


def mix_of(folder: Path, **weights: float) -> list[str]:
    counts = {"a": 6, "b": 3}
    for name, count in counts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(lines(count)))
    entries = {
        name: {"root": str(folder), "annotation": f"{name}.jsonl"} | ({"weight": weights[name]} if weights else {})
        for name in counts
        if not weights or name in weights
    }
    if weights.keys() == {"a"}:
        entries["b"] = {"root": str(folder), "annotation": "b.jsonl"}
    (folder / "meta.json").write_text(json.dumps(entries))
    return [Path(sample.source).name[0] + sample.id for sample in read_mix(load_meta(folder / "meta.json"))]


def test_weights_share_out_the_mix(tmp_path: Path) -> None:
    every = [f"a{n}" for n in range(6)] + [f"b{n}" for n in range(3)]
    assert mix_of(tmp_path) == every
    assert mix_of(tmp_path, a=2, b=1) == every
    assert mix_of(tmp_path, a=1, b=2) == ["a0", "a1", "a2", "b0", "b1", "b2", "b0", "b1", "b2"]
    with pytest.raises(UserError, match="'weight' 1 of 'b' leaves none"):
        mix_of(tmp_path, a=100, b=1)
    with pytest.raises(UserError, match="'a' has a 'weight' and others have none"):
        mix_of(tmp_path, a=1)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"repeat_time": True}, "'repeat_time' of 'set' is True: expected a number"),
        ({"repeat_time": 1e300}, "'repeat_time' of 'set' is 1e\\+300: expected more than 0, at most 10000"),
        ({"weight": 0}, "'weight' of 'set' is 0"),
        ({"max_dynamic_patch": 0}, "'max_dynamic_patch' of 'set' is 0"),
        ({"data_augment": "yes"}, "'data_augment' of 'set' is 'yes'"),
        ({"allow_outside_root": 1}, "'allow_outside_root' of 'set' is 1"),
        ({"object_names": {"pool": 3}}, "'object_names' of 'set': expected a text"),
        ({"root": "a\0b"}, "'root' of 'set' is no folder"),
        ({"root": "a" * 5000}, "'root' of 'set' is no folder"),
    ],
)
def test_settings_of_an_entry_are_checked(fields: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"meta.json: {expected}"):
        entry_at(tmp_path, "a.jsonl", lines(1)[0], **fields)


def test_an_entry_hands_its_settings_on(tmp_path: Path) -> None:
    entry = entry_at(tmp_path, "a.jsonl", lines(1)[0], max_dynamic_patch=6, data_augment=True, allow_outside_root=True)
    (sample,) = read_samples(entry)
    assert (sample.max_dynamic_patch, sample.data_augment, sample.root) == (6, True, None)
