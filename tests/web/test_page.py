"""The page in a browser, over the model and the clips of the demo: what a user does, from the mouse to the files."""

from __future__ import annotations

import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from internvl_chat.__main__ import build_parser
from internvl_chat.boxes import load_boxes, parse_box_text
from internvl_chat.data.synthetic.shapes import MovingShape, sample_clip, write_video
from internvl_chat.trackers.opencv import OpenCVTracker
from internvl_chat.web.demo import SEED
from tests.helpers import ROOT
from tests.trackers.tiny_models import write_sam2

pytest.importorskip("gradio_image_annotation", reason="requirements/web.txt is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright of requirements/dev.txt is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(CHROMIUM is None, reason="no browser (Debian: apt-get install chromium)"),
]

WAIT_MS = 30_000
sync_api.expect.set_options(timeout=WAIT_MS)
# The first clip's two targets; both are circles, so that no shape tells them apart.
TARGETS = sample_clip(np.random.default_rng(SEED), same_category=True).objects[:2]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The demo's page, as the command opens it."""
    from internvl_chat.commands.web import open_page

    argv = ["web", "--demo", "--state", str(tmp_path_factory.mktemp("web")), "--port", str(free_port())]
    page, address = open_page(build_parser().parse_args(argv))
    yield address
    page.close()


@pytest.fixture
def sam2_url(tmp_path: Path) -> Iterator[str]:
    """The demo's page with a tiny SAM 2 as the tracker."""
    from internvl_chat.commands.web import open_page

    (tmp_path / "sam2").mkdir()
    argv = ["web", "--demo", "--tracker", str(write_sam2(tmp_path / "sam2"))]
    page, address = open_page(
        build_parser().parse_args([*argv, "--state", str(tmp_path / "web"), "--port", str(free_port())])
    )
    yield address
    page.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Visit:
    """One browser's page, with the hosts that it asked and what its console complained of."""

    page: Any
    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(WAIT_MS)
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)

    def reload(self) -> None:
        """Load the page again; of what was on its way the browser says that it was cut off."""
        before = len(self.complaints)
        self.page.reload()
        cut_off = ("BodyStreamBuffer was aborted", "Connection errored out")
        self.complaints[before:] = [
            said for said in self.complaints[before:] if not any(words in said for words in cut_off)
        ]

    def draw(self, box_px: np.ndarray, surface: str = "#annotator canvas") -> None:
        """Draw x y w h, in pixels of the video, with the mouse."""
        (left, top), (right, bottom) = self._corners(box_px, surface)
        mouse = self.page.mouse
        mouse.move(left, top)
        mouse.down()
        mouse.move((left + right) / 2, (top + bottom) / 2)
        mouse.move(right, bottom)
        mouse.up()

    def click_corners(self, box_px: np.ndarray) -> None:
        for corner, said in zip(self._corners(box_px, "#clicked img"), ("click the opposite one", ""), strict=True):
            self.page.mouse.click(*corner)
            self.see("#progress", said)

    def _corners(self, box_px: np.ndarray, surface: str) -> list[tuple[float, float]]:
        lies = self.page.locator(surface).bounding_box()
        scale = min(640, lies["width"]) / 192
        left = lies["x"] + (lies["width"] - 192 * scale) / 2
        x, y, w, h = (float(v) * scale for v in box_px)
        return [(left + x, lies["y"] + y), (left + x + w, lies["y"] + y + h)]

    def see(self, selector: str, text: str | re.Pattern[str]) -> str:
        """Wait until a part shows a text; all that it shows."""
        sync_api.expect(self.page.locator(selector)).to_contain_text(text, timeout=WAIT_MS)
        return str(self.page.locator(selector).inner_text())

    def go_to(self, frame: int) -> None:
        number = self.page.locator("#frame input[type=number]")
        number.fill(str(frame))
        number.press("Enter")
        sync_api.expect(self.page.locator("svg.plot .now")).to_have_attribute("x1", f"{frame * 600 / 23:.1f}")

    def choose_file(self, button: str, path: Path) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.page.click(button)
        chooser.value.set_files(path)

    def track(self, button: str = "#track") -> None:
        self.page.click(button)
        self.see("#progress", "of")
        sync_api.expect(self.page.locator("#progress")).to_be_empty()


@pytest.fixture
def visit(browser: Any, url: str) -> Iterator[Callable[..., Visit]]:
    contexts = []

    def begin(address: str = url, **settings: Any) -> Visit:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings}))
        begun = Visit(contexts[-1].new_page())
        begun.page.goto(address)
        begun.page.wait_for_selector("#annotator canvas")
        begun.see("#objects", "Draw a box")
        return begun

    yield begin
    for context in contexts:
        context.close()


def says(target: MovingShape) -> re.Pattern[str]:
    return re.compile(f"{target.colour} {target.shape}")


def test_two_objects_are_drawn_tracked_mended_captioned_compared_and_saved(
    visit: Callable[..., Visit], tmp_path: Path
) -> None:
    user = visit()
    page = user.page
    for number, target in enumerate(TARGETS, start=1):
        user.draw(target.boxes_px[0])
        user.see("#objects", f"{number} object")
    user.track()
    user.see("#objects", re.compile("seen on 2[0-9] of 24"))

    # Mend: the first object is not where the tracker found it on frame 12, and is followed on from there.
    user.go_to(12)
    page.click("#chosen >> text=1 object")
    page.click("#annotator button[aria-label='Create box']")
    moved = TARGETS[0].boxes_px[12] + [1, 1, 3, 3]
    user.draw(moved)
    user.see("#objects", "to be tracked")
    user.track("#track-on")
    assert "to be tracked" not in user.see("#objects", "1 object")

    page.click("#ask")
    first, second = page.locator("#objects td.caption").nth(0), page.locator("#objects td.caption").nth(1)
    sync_api.expect(first).to_have_text(says(TARGETS[0]))
    sync_api.expect(second).to_have_text(says(TARGETS[1]))

    page.click("#follow")
    rows = page.locator("#comparison tr")
    sync_api.expect(rows).to_have_count(3)
    sync_api.expect(rows.nth(0)).to_contain_text(says(TARGETS[0]))
    sync_api.expect(rows.nth(2)).to_contain_text(says(TARGETS[1]))
    sync_api.expect(rows.nth(2)).to_contain_text("another caption")

    page.click("#save")
    links = page.locator("#files a[download]")
    sync_api.expect(links).to_have_count(4)
    for link in links.all():
        with page.expect_download() as download:
            link.click()
        download.value.save_as(tmp_path / download.value.suggested_filename)
    boxes_px = parse_box_text(tmp_path / "object_bboxes.txt")
    assert np.abs(boxes_px[12] - moved).max() < 1
    middle = boxes_px[:, :2] + boxes_px[:, 2:] / 2
    truth = TARGETS[0].boxes_px[:, :2] + TARGETS[0].boxes_px[:, 2:] / 2
    assert np.abs(middle - truth).max() < 12
    assert load_boxes(tmp_path / "object_bboxes.npy").shape == (24, 4)
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 2

    # The rows alone: while an answer is on its way, the page writes its own notes beside them.
    before = page.locator("#objects tr").all_inner_texts()
    user.reload()
    user.see("#objects", says(TARGETS[0]))
    assert page.locator("#objects tr").all_inner_texts() == before
    assert page.locator("#frame input[type=number]").input_value() == "12"
    assert page.locator("#film video").count() == 1
    assert user.hosts == {page.url.split("/")[2]}
    assert user.complaints == []


def test_on_a_phone_boxes_are_set_by_two_clicks_and_a_script_in_a_caption_is_text(visit: Callable[..., Visit]) -> None:
    user = visit(viewport={"width": 390, "height": 844})
    page = user.page
    page.click("text=Set boxes by two clicks")
    page.locator("#clicked img").scroll_into_view_if_needed()
    user.click_corners(TARGETS[1].boxes_px[0])
    user.see("#objects", "1 object")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.keyboard.press(".")
    sync_api.expect(page.locator("svg.plot .now")).to_have_attribute("x1", f"{600 / 23:.1f}")
    page.click("#absent")
    sync_api.expect(page.locator("svg.plot circle[fill=none]")).to_have_count(1)
    page.locator("#caption textarea").fill("<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>")
    page.locator("#name input").click()
    user.see("#objects", "<script>window.ran")
    assert page.evaluate("window.ran") is None
    assert user.complaints == []


def test_what_cannot_be_done_is_told_and_an_upload_is_opened(visit: Callable[..., Visit], tmp_path: Path) -> None:
    user = visit()
    page = user.page
    page.click("#ask")
    user.see(".toast-body", "draw a box around an object")
    (tmp_path / "broken.mp4").write_text("no video")
    user.choose_file("#upload", tmp_path / "broken.mp4")
    user.see(".toast-wrap", "broken.mp4")
    shutil.copyfile(ROOT / "tests" / "files" / "captions.json", tmp_path / "r.jsonl")
    user.choose_file("#record", tmp_path / "r.jsonl")
    user.see(".toast-wrap", "r.jsonl")
    write_video(tmp_path / "own.mp4", sample_clip(np.random.default_rng(5)))
    # A box that is drawn on the picture before is none of this clip's.
    with page.expect_response(lambda reply: reply.url.endswith("-0.png")):
        user.choose_file("#upload", tmp_path / "own.mp4")
    sync_api.expect(page.locator("#clip input")).to_have_value("upload: own.mp4")
    page.wait_for_timeout(500)
    user.draw(np.array([30, 40, 50, 60]))
    user.see("#objects", "1 of 24 frames have a box")
    assert user.complaints == []


LONG = 300


def write_long_video(path: Path) -> None:
    """A square that wanders for 300 frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 192, 144, "yuv420p"
        for t in range(LONG):
            frame = np.full((144, 192, 3), 60, np.uint8)
            frame[40:80, 20 + t // 3 : 60 + t // 3] = (220, 40, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def test_stop_ends_tracking_and_changes_nothing(
    visit: Callable[..., Visit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = OpenCVTracker.step

    def slow_step(self: OpenCVTracker, *given: Any) -> Any:
        # A minute in all: nobody's button comes too late.
        time.sleep(60 / LONG)
        return step(self, *given)

    monkeypatch.setattr(OpenCVTracker, "step", slow_step)
    user = visit()
    page = user.page
    write_long_video(tmp_path / "long.mp4")
    user.choose_file("#upload", tmp_path / "long.mp4")
    sync_api.expect(page.locator("#clip input")).to_have_value("upload: long.mp4")
    user.draw(np.array([20, 40, 40, 40]))
    user.see("#objects", f"1 of {LONG} frames have a box")
    before = page.locator("#objects tr").all_inner_texts()
    page.click("#track")
    user.see("#progress", re.compile(f"Tracking.* of {LONG}"))
    page.click("#stop")
    user.see("#progress", "Stopped.")
    assert page.locator("#objects tr").all_inner_texts() == before
    assert page.locator("#film video").count() == 0
    # And it can be tracked again.
    page.click("#track")
    user.see("#progress", re.compile(f"Tracking.* of {LONG}"))
    page.click("#stop")
    user.see("#progress", "Stopped.")
    assert user.complaints == []


def test_a_saved_record_is_opened_where_nothing_was_drawn(visit: Callable[..., Visit], tmp_path: Path) -> None:
    first = visit()
    for number, target in enumerate(TARGETS, start=1):
        first.draw(target.boxes_px[0])
        first.see("#objects", f"{number} object")
    first.track()
    first.page.click("#chosen >> text=1 object")
    first.page.locator("#caption textarea").fill("a shape that somebody saved")
    first.page.locator("#name input").click()
    first.see("#objects", "a shape that somebody saved")
    first.page.click("#save")
    links = first.page.locator("#files a[download]")
    sync_api.expect(links).to_have_count(4)
    with first.page.expect_download() as download:
        links.nth(3).click()
    assert download.value.suggested_filename == "records.jsonl"
    download.value.save_as(tmp_path / "records.jsonl")
    tracked = first.page.locator("#objects tr").all_inner_texts()

    other = visit()
    other.choose_file("#record", tmp_path / "records.jsonl")
    other.see("#objects", "a shape that somebody saved")
    (kept,) = [row for row in tracked if "a shape that somebody saved" in row]
    seen = re.search(r"seen on \d+ of 24", kept)
    assert seen
    other.see("#objects", seen.group())
    # It is a track like any other: it can be mended and followed anew.
    other.go_to(12)
    other.page.click("#absent")
    other.see("#objects", "to be tracked")
    assert other.complaints == []


def test_two_tabs_do_not_share_a_session_unnoticed(visit: Callable[..., Visit]) -> None:
    first = visit()
    first.draw(TARGETS[0].boxes_px[0])
    first.see("#objects", "1 object")
    second = Visit(first.page.context.new_page())
    second.page.goto(first.page.url)
    second.see("#objects", "1 object")
    second.page.click("#annotator button[aria-label='Create box']")
    second.draw(TARGETS[1].boxes_px[0])
    second.see("#objects", "2 object")
    # The older tab, which does not show that, may change nothing, and says what can be done.
    first.page.click("#remove")
    first.see(".toast-body", "open in another tab")
    second.reload()
    second.see("#objects", "2 object")
    first.reload()
    first.see("#objects", "2 object")
    first.page.click("#absent")
    first.see("#objects", "to be tracked")
    second.page.click("#ask")
    second.see(".toast-body", "open in another tab")
    second.page.click("#fresh")
    second.see("#objects", "Draw a box")
    second.page.click("#annotator button[aria-label='Create box']")
    second.draw(TARGETS[1].boxes_px[0])
    second.see("#objects", "1 object")
    first.page.click("#chosen >> text=1 object")
    first.page.click("#remove")
    sync_api.expect(first.page.locator("#objects tr")).to_have_count(2)  # the heading, and the object that stays
    first.see("#objects", "2 object")
    assert first.complaints == second.complaints == []


def test_a_sam2_named_as_the_tracker_tracks_on_the_page(visit: Callable[..., Visit], sam2_url: str) -> None:
    user = visit(sam2_url)
    user.draw(TARGETS[0].boxes_px[0])
    user.see("#objects", "1 object")
    user.track()
    user.see("#objects", re.compile("seen on [0-9]+ of 24"))
    assert user.page.locator("#film video").count() == 1
    assert user.complaints == []
