"""One model for a notebook: captions of tracks in every form, of several objects, and whether they follow the box."""

from __future__ import annotations

import re
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from internvl_chat import Captioner
from internvl_chat.api import Caption
from internvl_chat.boxes import load_boxes, parse_box_text
from internvl_chat.contracts import UserError
from internvl_chat.data.media.video import read_frames, read_header
from internvl_chat.data.prompts.wordings import wording_named
from internvl_chat.data.records.annotations import DatasetEntry
from internvl_chat.data.records.given.given_tracks import as_tracks
from internvl_chat.data.records.intentvc import boxes_path_of, video_path_of
from internvl_chat.data.records.record_questions import question_sample
from internvl_chat.files import read_json, write_json
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.ensemble import Ensemble
from internvl_chat.inference.generation import Captioners, caption_ends
from internvl_chat.inference.handle import open_model
from internvl_chat.inference.predict import predict
from internvl_chat.inference.requests import Ask, Viewpoint
from tests.helpers import ROOT


@pytest.fixture(scope="module")
def captioner(captioner_folder: Path) -> Captioner:
    return Captioner.open(captioner_folder, num_frames=3)


@pytest.fixture(scope="module")
def video(shapes_entry: DatasetEntry) -> Path:
    pairs = read_json(shapes_entry.root / "other_target.json")
    return video_path_of(shapes_entry.root, sorted(pairs)[0])


@pytest.fixture(scope="module")
def other_track(shapes_entry: DatasetEntry, video: Path) -> Path:
    """The other object's boxes in the same clip."""
    pairs = read_json(shapes_entry.root / "other_target.json")
    return boxes_path_of(video_path_of(shapes_entry.root, pairs[video.stem]))


def forms_of(track: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """The same track in every form in which one can be given, with what must be said of it."""
    boxes = load_boxes(track)
    boxes_px = parse_box_text(track.with_suffix(".txt"))
    in_a_record = {"name": "cup", "boxes": boxes.tolist(), "unit": "thousandths", "order": "xyxy"}
    shutil.copyfile(track, folder / "moved.npy")
    write_json(folder / "track.json", [in_a_record])
    return {
        "npy": {"track": track},
        "text path": {"track": str(folder / "moved.npy")},
        "txt": {"track": track.with_suffix(".txt")},
        "json": {"track": folder / "track.json"},
        "array": {"track": boxes, "unit": "thousandths"},
        "list": {"track": boxes.tolist(), "unit": "thousandths"},
        "fractions": {"track": boxes / 1000, "unit": "unit"},
        "pixels": {"track": boxes_px, "unit": "pixels", "order": "xywh"},
        "frames": {"track": dict(enumerate(boxes)), "unit": "thousandths"},
        "record": {"track": in_a_record},
    }


def test_a_track_says_the_same_in_every_form(captioner: Captioner, video: Path, tmp_path: Path) -> None:
    track = boxes_path_of(video)
    captions = {
        form: captioner.caption(video, **{"name": "cup", "max_new_tokens": 6, **given})
        for form, given in forms_of(track, tmp_path).items()
    }
    first = captions["npy"]
    assert first.boxes.any() and len(first.frames) == 3
    for form, caption in captions.items():
        assert caption.text == first.text, form
        assert caption.sample.object_name == "cup", form
        # A box in whole pixels and one in whole thousandths differ by a rounding.
        assert np.abs(caption.boxes - first.boxes).max() <= (1 if form in ("pixels", "txt") else 0), form


def test_captions_are_those_of_prediction(
    captioner: Captioner, captioner_folder: Path, shapes_entry: DatasetEntry, video: Path, tmp_path: Path
) -> None:
    """The notebook's caption is the submission's, candidates too."""
    sample = question_sample(shapes_entry, video.stem, wording_named("coordinates").asks)
    decoding = Decoding(num_beams=3, num_candidates=2, max_new_tokens=5)
    opened = open_model(captioner_folder)

    def load() -> Captioners:
        ends = caption_ends(opened.encoder)
        return Captioners(Ensemble([opened.load()]), [0], opened.encoder.tokenizer, ends, decoding)

    asks = [Ask(video.stem, (sample,))]
    view = Viewpoint(opened.encoder, 3)
    predicted = predict(asks, [view], load, decoding=decoding, identity="x", folder=tmp_path / "progress")
    caption = captioner.caption(
        video, boxes_path_of(video), name=sample.object_name, num_beams=3, num_candidates=2, max_new_tokens=5
    )
    assert list(caption.candidates) == predicted.candidates[video.stem]


def test_objects_of_a_clip_are_captioned_together_as_alone(
    captioner: Captioner, video: Path, other_track: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks = {"cup": boxes_path_of(video), "plate": other_track}
    alone = {name: captioner.caption(video, track, name=name, max_new_tokens=6) for name, track in tracks.items()}
    decoded: list[object] = []
    pixels = captioner.encoder.pixels

    def counted(*args: Any) -> Any:
        decoded.append(args)
        return pixels(*args)

    monkeypatch.setattr(captioner.encoder, "pixels", counted)
    together = captioner.caption_objects(video, tracks, max_new_tokens=6)
    assert {name: str(c) for name, c in together.items()} == {name: str(c) for name, c in alone.items()}
    assert len(decoded) == 1
    assert not np.array_equal(together["cup"].boxes, together["plate"].boxes)


def test_following_changes_nothing_but_the_box(captioner: Captioner, video: Path, other_track: Path) -> None:
    result = captioner.follow_the_box(video, boxes_path_of(video), other_track, name="cup")
    assert result.other is not None
    assert result.own.boxes.any() and not result.without.boxes.any()
    assert np.array_equal(result.other.boxes, load_boxes(other_track)[list(result.other.frames)])
    asked = {(c.sample.turns, c.sample.object_name, c.frames) for c in (result.own, result.without, result.other)}
    assert len(asked) == 1
    assert result.changes_without == (result.own.text != result.without.text)
    assert result.changes_with_other == (result.own.text != result.other.text)
    assert str(result).count("\n") == 2
    assert captioner.follow_the_box(video, boxes_path_of(video)).changes_with_other is None


def test_one_box_holds_for_every_frame(captioner: Captioner, video: Path) -> None:
    caption = captioner.caption(video, [100, 200, 300, 450], unit="thousandths", max_new_tokens=2)
    assert caption.boxes.tolist() == [[100, 200, 300, 450]] * 3


def test_frames_in_memory_say_what_the_video_says(captioner: Captioner, video: Path) -> None:
    frames = read_frames(video, np.arange(read_header(video).timeline.num_frames))
    track = load_boxes(boxes_path_of(video))
    of_video = captioner.caption(video, track, unit="thousandths", max_new_tokens=6)
    pictures = [Image.fromarray(frame) for frame in frames]
    for clip in (frames, list(frames), pictures):
        caption = captioner.caption(clip, track, unit="thousandths", max_new_tokens=6)
        assert (caption.text, caption.frames) == (of_video.text, of_video.frames)
        assert np.array_equal(caption.boxes, of_video.boxes)
    assert len(list(Path(captioner._kept.name).iterdir())) == 1, "the same frames are written once"


def test_one_box_is_followed_from_its_frame(captioner: Captioner, video: Path) -> None:
    pytest.importorskip("cv2")
    boxes = load_boxes(boxes_path_of(video))
    frame = int(np.flatnonzero(boxes.any(axis=1))[2])
    named = {"name": "cup", "unit": "thousandths"}
    followed = captioner.caption(video, boxes[frame], track_from=frame, **named, max_new_tokens=6)
    track = captioner.follow(video, boxes[frame], frame, **named)
    again = captioner.caption(video, track, max_new_tokens=6)
    assert np.array_equal(followed.boxes, again.boxes) and followed.text == again.text
    assert followed.sample.object_name == "cup"
    assert len({tuple(box) for box in followed.boxes.tolist()}) > 1, "the box stood still"
    for given, said in ((boxes, "followed from one box"), ([1, 2, 3, 4], "has no frame 900")):
        with pytest.raises(UserError, match=said):
            captioner.follow(video, given, 900, unit="thousandths")


def test_clips_come_one_after_the_other(captioner: Captioner, video: Path) -> None:
    track = boxes_path_of(video)
    captions = captioner.caption_clips([(video, track), video, (video, "nowhere.npy")], max_new_tokens=4)
    assert str(next(captions)) == str(captioner.caption(video, track, max_new_tokens=4))
    assert str(next(captions)) == str(captioner.caption(video, max_new_tokens=4))
    with pytest.raises(UserError, match="nowhere.npy"):
        next(captions)


def test_captions_are_pictures_in_a_notebook(captioner: Captioner, video: Path) -> None:
    caption = captioner.caption(video, [100, 200, 600, 850], unit="thousandths", max_new_tokens=4)
    shown = Image.open(BytesIO(caption._repr_png_() or b""))
    assert np.array_equal(np.asarray(shown), np.asarray(captioner.draw(caption)))
    following = captioner.follow_the_box(video, [100, 200, 600, 850], unit="thousandths")
    both = Image.open(BytesIO(following._repr_png_()))
    assert both.height == following.own.show().height + following.without.show().height


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (np.zeros((5, 8, 9, 3)), r"a clip of float64: expected uint8, 0 to 255; .*frames \* 255"),
        (np.zeros((5, 3, 8, 9), np.uint8), r"\[5, 3, 8, 9\]: expected \[T, H, W, 3\]; .*transpose\(0, 2, 3, 1\)"),
        (np.zeros((8, 9, 3), np.uint8), "as one picture"),
        (Image.new("RGB", (9, 8)), "as one picture"),
        (torch.zeros((5, 3, 8, 9)), r"\[5, 3, 8, 9\]: expected \[T, H, W, 3\]; .*permute\(0, 2, 3, 1\)"),
        (torch.zeros((5, 8, 9, 3)), r"frames \* 255\)\.round\(\)\.byte\(\)"),
        ([np.zeros((8, 9, 3), np.uint8), np.zeros((8, 7, 3), np.uint8)], r"frame 1 of a clip is \[8, 7, 3\]"),
        ([], r"given as ndarray of shape \[0\]"),
        (7, "a clip given as int: expected the path of a video"),
        (None, "a clip given as NoneType"),
    ],
    ids="floats channels-first array picture torch-channels torch-floats sizes empty number none".split(),
)
def test_a_clip_that_is_none_gets_a_sentence(captioner: Captioner, clip: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        captioner.caption(clip)


def test_a_clip_without_a_track_is_described_as_a_whole(captioner: Captioner, video: Path) -> None:
    caption = captioner.caption(video, max_new_tokens=4)
    assert not caption.boxes.any()
    assert repr(caption) == f"clip: {caption.text}"


def test_the_caption_is_drawn_with_its_boxes(captioner: Captioner, video: Path) -> None:
    caption = captioner.caption(video, [100, 200, 600, 850], unit="thousandths", max_new_tokens=4)
    with_box, without = captioner.draw(caption), captioner.draw(captioner.caption(video, max_new_tokens=4))
    assert with_box.size[0] == without.size[0]
    assert np.asarray(with_box)[:80].tobytes() != np.asarray(without)[:80].tobytes()


def test_a_chat_shares_the_weights(captioner: Captioner, video: Path) -> None:
    chat = captioner.chat(max_new_tokens=3)
    assert chat.model is captioner.model
    assert chat.ask("What is seen?", video=video).sample.video_path == video


@pytest.mark.parametrize(
    ("track", "settings", "message"),
    [
        ("nowhere.npy", {}, "nowhere.npy"),
        (np.zeros((4, 3)), {}, r"shape \[4, 3\]"),
        ([[1, 2, 3, 4]], {}, "1 boxes"),
        (object(), {}, "given as object"),
        ([1, 2, 3, 4], {"unit": "metres"}, "metres"),
        ({"first": [1, 2, 3, 4]}, {}, "first"),
        ({0: [0.1, 0.2, 0.3, 0.4]}, {}, "0.1,0.2,0.3,0.4 .* in fractions"),
        ([0.1, 0.2, 0.3, 0.4], {}, "in fractions, expected thousandths"),
        ([400, 40, 500, 80], {"unit": "pixels"}, "lies outside the picture"),
        ([[100, 90, 40, 50]], {}, "1 of 1 boxes run backwards, .* 100,90,40,50: .*order='xywh'"),
        (
            {"name": "a", "boxes": [[100, 90, 40, 50]], "unit": "pixels", "order": "xyxy"},
            {"unit": None},
            "1 of 1 boxes run backwards",
        ),
        ({0: [1, 2, 3, 4], 2: [30, 40, 10, 9]}, {}, "1 of 2 boxes run backwards, number 2 first"),
        ([[0, 0, 0, 0], [9, 9, 5, -5]], {"order": "xywh"}, "number 2 first: .*a width and height of 0 or more"),
        ([1, 2, 3, 4], {"num_candidates": 2}, "^num_candidates 2 with num_beams 1: .*; raise num_beams"),
        (
            [0.1, 0.2, 0.3, 0.4],
            {"unit": "fractions"},
            "expected one of .*; fractions of the picture's sides are 'unit'",
        ),
        ([1, 2, 3, 4], {"max_new_tokens": "9"}, "max_new_tokens given as str: expected a whole number"),
        ([1, 2, 3, 4], {"num_beams": 0}, "num_beams=0: expected 1 or more"),
        ([1, 2, 3, 4], {"temperature": "hot"}, "temperature given as str: expected a number"),
        ([1, 2, 3, 4], {"track_from": "first"}, "track_from given as str"),
        ([1, 2, 3, 4], {"question": 3}, "a question given as int: expected a text"),
        ([1, 2, 3, 4], {"frames": 2}, "frames: is no setting; expected name, unit, order, interpolate"),
    ],
    ids=(
        "no-file three-columns one-row no-track unit frame fractions a-fraction outside order record-order "
        "frames-order sizes decoding unit-name tokens beams heat from question setting"
    ).split(),
)
def test_what_cannot_be_used_is_said(
    captioner: Captioner, video: Path, track: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        captioner.caption(video, track, **{"unit": "thousandths", **settings})


def test_numbers_say_their_unit(captioner: Captioner, video: Path) -> None:
    for track in ([1, 2, 3, 4], [[1, 2, 3, 4]], np.ones((4, 4)), {0: (1, 2, 3, 4)}):
        with pytest.raises(UserError, match="without their unit: expected unit='pixels', unit='thousandths'"):
            captioner.caption(video, track)
        with pytest.raises(UserError, match="without their unit"):
            captioner.caption_objects(video, {"cup": track})
        with pytest.raises(UserError, match="without their unit"):
            captioner.follow_the_box(video, track)


def test_a_few_frames_with_boxes_are_said_to_be_key_frames_or_not(captioner: Captioner, video: Path) -> None:
    last = read_header(video).timeline.num_frames - 1
    keyed = {0: [0, 0, 200, 300], last: [800, 600, 1000, 900]}
    settings = {"unit": "thousandths", "name": "cup", "max_new_tokens": 3}
    with pytest.raises(
        UserError, match=rf"'cup' has a box at 2 of the {last + 1} frames from 0 to {last}: say by 'int"
    ):
        captioner.caption(video, keyed, **settings)
    moving = captioner.caption(video, keyed, interpolate=True, **settings)
    expected = [np.rint(np.interp(moving.frames, [0, last], side)) for side in zip(*keyed.values(), strict=True)]
    assert np.array_equal(moving.boxes, np.stack(expected, axis=1))
    with pytest.raises(UserError, match=r"'cup' is in none of the 3 frames that are shown \(\d+, \d+, \d+\)"):
        captioner.caption(video, keyed, interpolate=False, **settings)
    with pytest.raises(UserError, match=r"only the boxes of \{frame: box\} can be key frames"):
        captioner.caption(video, [1, 2, 3, 4], interpolate=True, unit="thousandths")
    missed = {frame: [100, 200, 300, 450] for frame in range(last + 1) if frame % 3}
    assert captioner.caption(video, missed, **settings).boxes.any(), "a detector's gaps need no word"


def test_what_is_said_of_a_track_is_heeded_or_refused(captioner: Captioner, video: Path, tmp_path: Path) -> None:
    """A file and a record say themselves what their numbers are: pixels in a .npy would be a box beside the object."""
    frames = read_header(video).timeline.num_frames
    np.save(tmp_path / "px.npy", np.tile([5, 6, 30, 40], (frames, 1)))
    (tmp_path / "px.txt").write_text("5,6,25,34\n" * frames)
    record = {"name": "cup", "boxes": {0: (5, 6, 30, 40), frames - 1: np.array([9, 6, 34, 40], np.float32)}}
    whole = {**record, "unit": "pixels", "order": "xyxy", "interpolate": True}
    write_json(tmp_path / "one.json", [{**whole, "boxes": {"0": [5, 6, 30, 40], str(frames - 1): [9, 6, 34, 40]}}])
    for track, said, message in (
        (tmp_path / "px.npy", {"unit": "pixels"}, r"unit='pixels' beside .*px.npy: it has unit 'thousandths'; leave"),
        (tmp_path / "px.npy", {"order": "xywh"}, "it has order 'xyxy'"),
        (tmp_path / "px.txt", {"unit": "thousandths"}, "it has unit 'pixels'"),
        (tmp_path / "px.txt", {"order": "xyxy"}, "it has order 'xywh'"),
        (tmp_path / "px.txt", {"interpolate": True}, "interpolate=True beside .*px.txt: it has interpolate False"),
        (tmp_path / "one.json", {"unit": "unit"}, "unit='unit' beside .*one.json: it has unit 'pixels'"),
        (whole, {"interpolate": False}, "interpolate=False beside the track: it has interpolate True"),
        ([whole], {"unit": "thousandths"}, "unit='thousandths' beside the track: it has unit 'pixels'"),
        (as_tracks(whole)[0], {"unit": "unit"}, "beside a track that was read: it has unit 'pixels'"),
        (as_tracks(whole)[0], {"order": "xyxy"}, "beside a track that was read: it says its order itself"),
    ):
        with pytest.raises(UserError, match=message):
            captioner.caption(video, track, **said)
    mixed = {"dog": as_tracks(whole)[0], "cat": [[10, 10, 50, 50]] * frames, "cup": tmp_path / "px.txt"}
    both = captioner.caption_objects(video, mixed, unit="pixels", max_new_tokens=3)
    assert both["cat"].boxes.tolist() == [[52, 69, 260, 347]] * 3, "what is said is of what does not say it"
    captioner.follow_the_box(video, mixed["cat"], mixed["dog"], unit="pixels")
    with pytest.raises(UserError, match="unit='pixels' beside .*px.npy"):
        captioner.caption_objects(video, {"dog": tmp_path / "px.npy"}, unit="pixels")
    # What a record leaves open may be said beside it, and what is said twice alike is no fault.
    expected = as_tracks(whole)
    assert as_tracks(record, unit="pixels", order="xyxy", interpolate=True) == expected
    assert (
        as_tracks(whole, unit="pixels", interpolate=True) == as_tracks(tmp_path / "one.json", unit="pixels") == expected
    )
    assert as_tracks(tmp_path / "px.txt", unit="pixels", order="xywh") == as_tracks(tmp_path / "px.txt")


@pytest.mark.parametrize(
    ("track", "settings", "message"),
    [
        (
            {0: [80, 30, 110, 60], 23: [300, 100, 360, 140]},
            {"interpolate": True},
            "at frame 23 lies outside the picture",
        ),
        ({0: [120, 20, 140, 50]}, {"order": "xywh"}, "120,20,260,70 of 'object' at frame 0 leaves the picture"),
        (
            [[120 + 3.5 * t, 30, 140 + 3.5 * t, 60] for t in range(24)],
            {},
            "at frame 21 lies outside .*where the object is absent",
        ),
    ],
    ids="scaled-keys keys-of-sizes dense".split(),
)
def test_boxes_counted_in_another_size_are_told(
    captioner: Captioner, video: Path, track: Any, settings: dict[str, Any], message: str
) -> None:
    header = read_header(video)
    assert (header.timeline.num_frames, header.size_px) == (24, (192, 144))
    with pytest.raises(UserError, match=message):
        captioner.caption(video, track, unit="pixels", **settings)


def test_a_chat_takes_pictures_in_memory(captioner: Captioner, tmp_path: Path) -> None:
    picture = Image.effect_noise((40, 30), 90).convert("RGB")
    picture.save(tmp_path / "a.png")
    expected = captioner.chat(max_new_tokens=3).ask("What?", images=tmp_path / "a.png").text
    for images in (picture, [picture], np.asarray(picture), [np.asarray(picture)]):
        assert captioner.chat(max_new_tokens=3).ask("What?", images=images).text == expected
    frames = [picture, picture.rotate(180)]
    assert captioner.chat(max_new_tokens=3).ask("What?", video=frames).sample.video_path
    with pytest.raises(UserError, match="a picture given as int: expected a path"):
        captioner.chat().ask("What?", images=[3])


def test_one_of_several_objects_is_meant_by_its_name(captioner: Captioner, video: Path, tmp_path: Path) -> None:
    frames = read_header(video).timeline.num_frames
    tracks = [
        {"name": name, "boxes": [box] * frames, "unit": "thousandths", "order": "xyxy"}
        for name, box in (("cup", [100, 200, 300, 450]), ("plate", [500, 600, 700, 850]))
    ]
    write_json(tmp_path / "two.json", tracks)
    for given in (tracks, tmp_path / "two.json"):
        plate = captioner.caption(video, given, name="plate", max_new_tokens=3)
        assert plate.sample.object_name == "plate" and plate.boxes.tolist() == [[500, 600, 700, 850]] * 3
        with pytest.raises(UserError, match="the track holds 2 objects, 'cup', 'plate': name= says which one"):
            captioner.caption(video, given)
        with pytest.raises(UserError, match="holds no object 'fork': expected 'cup', 'plate'"):
            captioner.follow_the_box(video, given, name="fork")
    both = captioner.caption_objects(video, dict.fromkeys(("plate", "cup"), tmp_path / "two.json"), max_new_tokens=3)
    assert both["cup"].boxes.tolist() == [[100, 200, 300, 450]] * 3
    (read,) = as_tracks(tracks[0])
    assert captioner.caption(video, read, name="mug", max_new_tokens=3).sample.object_name == "mug"


def test_what_is_of_another_type_gets_a_sentence(captioner: Captioner, video: Path) -> None:
    with pytest.raises(UserError, match=r"tracks given as list: expected \{name: track\}"):
        captioner.caption_objects(video, [[1, 2, 3, 4]])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="a model given as NoneType: expected its folder"):
        Captioner.open(None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="foo: is no setting; expected num_frames or one of base_path, conv_style, "):
        Captioner.open("nowhere", foo=0)
    with pytest.raises(UserError, match="num_frames=0: expected 1 or more"):
        Captioner.open("nowhere", num_frames=0)
    with pytest.raises(UserError, match="a question given as int"):
        captioner.chat().ask(3)  # type: ignore[arg-type]


def test_a_clip_that_is_not_there_is_said(captioner: Captioner) -> None:
    with pytest.raises(UserError, match="missing.mp4: not found"):
        captioner.caption("missing.mp4")


def test_the_lines_of_the_readme(
    captioner_folder: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shutil.copyfile(video, tmp_path / "clip.mp4")
    shutil.copyfile(video.with_name("object_bboxes.txt"), tmp_path / "object_bboxes.txt")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(block.replace("CKPT", str(captioner_folder)), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"own box:       {lines[0]}"
    assert lines[2].startswith("no box:")


def test_an_answer_prints_itself_in_a_line(captioner: Captioner, video: Path) -> None:
    answer = captioner.chat(max_new_tokens=2).ask("What is seen?", video=video)
    assert (str(answer), repr(answer)) == (answer.text, f"answer: {answer.text}")


def test_a_caption_prints_itself() -> None:
    caption = Caption("a dog runs", ("a dog runs",), None, (), np.zeros((0, 4), dtype=np.int64))  # type: ignore[arg-type]
    assert f"{caption}" == "a dog runs"
