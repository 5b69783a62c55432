"""A report without references: one file with every clip, its track and what was said, whatever the layout."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from internvl_chat.__main__ import main
from internvl_chat.data.records.annotations import DatasetEntry
from internvl_chat.files import read_json
from internvl_chat.scoring.predictions import run_facts, write_facts, write_predictions
from internvl_chat.tasks.intentvc.groups import known_clips
from tests.reports.test_caption_report import Page


def gallery(out: Path, *argv: object) -> str:
    assert main(["report", *map(str, argv), "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8")


@pytest.fixture
def records(shapes_entry: DatasetEntry, tmp_path: Path) -> tuple[Path, list[str]]:
    """Records of two objects in one clip, one of them answered, and of a text alone."""
    first, second = sorted(read_json(shapes_entry.root / "other_target.json"))[:2]
    boxes = {"0": [100, 100, 300, 400], "20": [200, 100, 400, 400]}
    records = []
    for number, name in enumerate(("red toy", "blue <toy>")):
        track = {"name": name, "boxes": boxes, "unit": "thousandths", "order": "xyxy", "interpolate": True}
        turns = [{"from": "human", "value": f"<video>\nWhat does the toy {number} do?"}]
        turns += [{"from": "gpt", "value": "it rolls"}] * number
        video = f"{first.split('-')[0]}/{first}/{first}.mp4"
        records.append({"id": f"clip {number}", "video": video, "tracks": [track], "conversations": turns})
    records.append({"id": "text", "conversations": [{"from": "human", "value": "Why?"}]})
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({"own": {"root": str(shapes_entry.root), "annotation": str(path)}}))
    return meta, [record["id"] for record in records]


def test_a_run_shows_its_own_clips(records: tuple[Path, list[str]], tmp_path: Path) -> None:
    """The run says which data it is about; nothing else need be given."""
    meta, ids = records
    said = {i: [f"{i} is <b>seen</b>"] for i in ids}
    write_predictions(tmp_path / "mine" / "answers.jsonl", said)
    facts = run_facts("work_dirs/run-3", str(meta), 5, {"num_beams": 2})
    write_facts(tmp_path / "mine" / "answers.jsonl", facts)
    text = gallery(tmp_path / "one.html", tmp_path / "mine", "--num_frames", 3)
    page = Page(text)
    assert [card["data-name"] for card in page.cards] == ["red toy", "blue <toy>", ""]
    assert page.options == ["", "blue <toy>", "red toy"]
    pictures = [link for link in page.links if link.startswith("data:image/webp;base64,")]
    assert len(pictures) == 2
    film = Image.open(io.BytesIO(base64.b64decode(pictures[0].split(",")[1])))
    assert (film.n_frames, text.count('<figure class="track">')) == (3, 2)
    assert sorted(set(page.links) - set(pictures)) == [f"#clip-{number}" for number in (1, 2, 3)]
    assert "clip 0 is &lt;b&gt;seen&lt;/b&gt;" in text and "<li>it rolls</li>" in text
    assert "<dd>work_dirs/run-3</dd>" in text and "5 frames, num_beams 2" in text and facts["date"] in text
    assert "Why?" in text and 'name="viewport"' in text

    # Another run beside it, of which nothing is known: the clips on which the two differ are marked.
    other = tmp_path / "other.json"
    other.write_text(json.dumps({ids[0]: said[ids[0]][0], ids[1]: "it rests"}))
    page = Page(gallery(tmp_path / "two.html", tmp_path / "mine", other))
    assert [card.get("data-differs") for card in page.cards] == [None, "1", None]
    assert len(Page(gallery(tmp_path / "some.html", tmp_path / "mine", "--clips", 1)).cards) == 1


def test_clips_that_nobody_names_are_cards_of_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"dog-1": "a dog"}))
    page = Page(gallery(tmp_path / "a.html", tmp_path / "a.json"))
    assert len(page.cards) == 1 and page.links == ["#clip-1"]
    assert "--tracks names the records" in capsys.readouterr().err


def test_a_clip_that_cannot_be_decoded_is_named(
    own_entry: DatasetEntry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = sorted(read_json(own_entry.root / "other_target.json"))[:2]
    broken = known_clips(own_entry.root, ids)[0][ids[0]].video_path
    assert broken is not None
    broken.write_bytes(broken.read_bytes()[:400])
    (tmp_path / "a.json").write_text(json.dumps(dict.fromkeys(ids, "a toy")))
    argv = ["report", tmp_path / "a.json", "--tracks", own_entry.root, "--out", tmp_path / "a.html", "--num_frames", 2]
    assert main(list(map(str, argv))) == 1
    assert f"error: {ids[0]} is not shown: " in capsys.readouterr().err
    assert len(Page((tmp_path / "a.html").read_text()).cards) == 2


def test_scores_begin_with_what_they_come_to(captions_file: Path, tmp_path: Path) -> None:
    captions = read_json(captions_file)["captions"]
    ids = list(captions)
    (tmp_path / "right.json").write_text(json.dumps({i: texts[0] for i, texts in captions.items()}))
    shifted = {i: captions[other][0] for i, other in zip(ids, ids[1:] + ids[:1], strict=True)}
    write_predictions(tmp_path / "shifted.jsonl", {i: [text] for i, text in shifted.items()})
    write_facts(tmp_path / "shifted.jsonl", run_facts("CKPT", "nowhere.json", 4, {}))
    shared = ["--references", captions_file, "--no_java", "--resamples", 60]
    text = gallery(tmp_path / "a.html", tmp_path / "shifted.jsonl", tmp_path / "right.json", *shared)
    first = text.split('<p class="conclusion">')[1].split("</p>")[0]
    assert first.startswith("right is better than shifted in CIDEr on 12 clips: ") and "p = 0.0" in first
    assert "<dd>CKPT</dd>" in text and "<dt>METEOR</dt>" not in text and "<dt>ROUGE-L</dt>" in text
    text = gallery(tmp_path / "b.html", tmp_path / "right.json", f"again={tmp_path / 'right.json'}", *shared)
    assert "again cannot be told from right in CIDEr on 12 clips" in text
    text = gallery(tmp_path / "c.html", tmp_path / "right.json", *shared)
    assert '<p class="conclusion">right has a CIDEr of ' in text
