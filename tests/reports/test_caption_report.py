"""The HTML report: everything inside one file, clips in order of gain, and nothing a caption can break."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_chat.data.records.annotations import DatasetEntry, read_captions, video_path_of
from internvl_chat.reports.caption_report import ReportInput, render_report
from internvl_chat.reports.clip_pictures import Track
from internvl_chat.tasks.intentvc.assessment import assess
from internvl_chat.tasks.intentvc.groups import known_clips, read_tracks

Captions = dict[str, list[str]]


class Page(HTMLParser):
    """Collects cards, pictures, links to elsewhere, and checks that tags are closed in order."""

    EMPTY = {"meta", "img", "input", "rect", "polyline", "br"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cards: list[dict[str, str]] = []
        self.links: list[str] = []
        self.options: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.links += [given[name] for name in ("src", "href") if name in given]
        if tag == "article":
            self.cards.append(given)
        if tag == "option":
            self.options.append(given["value"])
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def report_of(
    captions: Captions, said: dict[str, dict[str, str]], root: Path | None = None, num_clips: int = 100
) -> str:
    tracks = read_tracks(root, captions) if root else None
    clips = known_clips(root, captions)[0] if root else {}
    runs = {name: assess(texts, captions, tracks, java=False, resamples=40) for name, texts in said.items()}
    report = render_report(
        ReportInput("A <title>", runs, said, captions, tracks, clips, num_clips=num_clips, num_frames=3, resamples=40)
    )
    assert not report.faults
    return report.html


@pytest.fixture(scope="module")
def shapes(shapes_entry: DatasetEntry) -> Captions:
    return read_captions(shapes_entry.root / "references_test.json")


def test_one_file_with_plots_tracks_and_frames(shapes_entry: DatasetEntry, shapes: Captions) -> None:
    ids = list(shapes)
    right = {i: texts[0] for i, texts in shapes.items()}
    shifted = {i: right[other] for i, other in zip(ids, ids[1:] + ids[:1], strict=True)}
    text = report_of(shapes, {"shifted": shifted, "right": right}, shapes_entry.root)
    page = Page(text)
    assert page.links and all(link.startswith(("data:image/", "#clip-")) for link in page.links)
    # Six clips are too few to plot.
    assert not any(link.startswith("data:image/svg+xml") for link in page.links) and "<h2>Plots" not in text
    frames = [link for link in page.links if link.startswith("data:image/jpeg;base64,")]
    assert len(frames) == len(ids)
    picture = Image.open(io.BytesIO(base64.b64decode(frames[0].split(",")[1])))
    assert picture.width == 2 * 200 + 3 * 4
    assert text.count('<figure class="track">') == len(ids)
    gains = [float(card["data-gain1"]) for card in page.cards]
    assert gains == sorted(gains, reverse=True) and gains[0] > 0
    assert {card["data-id"] for card in page.cards} == set(ids)
    assert page.options == ["gain1 -1", "gain1 1", "score0 -1", "score0 1", "score1 -1", "score1 1", "id 1"]
    assert re.search(r"Difference from shifted", text)


def test_a_video_that_cannot_be_decoded_costs_its_picture_alone(shapes: Captions, own_entry: DatasetEntry) -> None:
    first = next(iter(shapes))
    path = video_path_of(own_entry.root, first)
    path.write_bytes(path.read_bytes()[:400])
    said = {i: texts[0] for i, texts in shapes.items()}
    tracks = read_tracks(own_entry.root, shapes)
    runs = {"mine": assess(said, shapes, tracks, java=False, resamples=40)}
    clips, _ = known_clips(own_entry.root, shapes)
    report = render_report(ReportInput("t", runs, {"mine": said}, shapes, tracks, clips, num_frames=2, resamples=40))
    assert list(report.faults) == [first] and str(path) in report.faults[first]
    frames = [link for link in Page(report.html).links if link.startswith("data:image/jpeg;base64,")]
    assert len(frames) == len(shapes) - 1 and report.html.count("No picture: ") == 1


def test_the_same_input_gives_the_same_file(captions: Captions) -> None:
    said = {"one": {i: texts[0] for i, texts in captions.items()}, "two": {i: t[1] for i, t in captions.items()}}
    assert report_of(captions, said) == report_of(captions, said)


def test_a_single_run_is_sorted_by_its_score(captions: Captions) -> None:
    text = report_of(captions, {"mine": {i: texts[2] for i, texts in captions.items()}}, num_clips=5)
    page = Page(text)
    scores = [float(card["data-score0"]) for card in page.cards]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)
    assert "Difference from" not in text and "place" not in text.split("<h2>Plots")[0].split("<body>")[1]
    assert sum(link.startswith("data:image/svg+xml;base64,") for link in page.links) == 3


def test_the_sheet_shows_both_ends_of_the_order(captions: Captions) -> None:
    said = {"one": {i: texts[0] for i, texts in captions.items()}, "two": {i: t[4] for i, t in captions.items()}}
    every, some = Page(report_of(captions, said)), Page(report_of(captions, said, num_clips=3))
    ids = [card["data-id"] for card in every.cards]
    assert [card["data-id"] for card in some.cards] == [ids[0], ids[1], ids[-1]]


def test_what_a_caption_says_is_text_not_html(captions: Captions) -> None:
    said = {i: texts[0] for i, texts in captions.items()}
    said["tram-1"] = "<script>alert(1)</script> tram"
    text = report_of({**captions, "tram-1": ["a & b <i>tram</i>"]}, {'x"<b>': said})
    page = Page(text)
    assert text.count("<script>") == 1 and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "a &amp; b &lt;i&gt;tram&lt;/i&gt;" in text and "A &lt;title&gt;" in text
    assert len(page.cards) == 12


def test_words_that_no_reference_has_are_marked(captions: Captions) -> None:
    said = {i: texts[0] for i, texts in captions.items()}
    said["tram-1"] = "A purple tram, turns Slowly"
    text = report_of(captions, {"mine": said})
    card = text[text.index('data-id="tram-1"') :].split("</article>")[0]
    assert "A <u>purple</u> tram, turns Slowly" in card


def test_a_track_is_drawn_with_its_gaps() -> None:
    boxes = np.array([[100, 200, 300, 600]] * 4 + [[0, 0, 0, 0]] * 2 + [[500, 0, 540, 100]] * 4)
    track = Track.of(boxes)
    assert track.boxes[0] == (100, 200, 200, 400, 0.0)
    assert track.boxes[-1] == (500, 0, 40, 100, 1.0)
    assert track.paths == ["200,400 200,400 200,400 200,400", "520,50 520,50 520,50 520,50"]
    assert track.stretches == [(0.0, 40.0, True), (40.0, 20.0, False), (60.0, 40.0, True)]
    absent = Track.of(np.zeros((7, 4), dtype=int))
    assert (absent.boxes, absent.paths, absent.stretches) == ([], [], [(0.0, 100.0, False)])
