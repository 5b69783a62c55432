"""Flowchart pictures: boxes that fit their ink, records and COCO annotations that say the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw
from pycocotools.coco import COCO

from internvl_chat.__main__ import main
from internvl_chat.commands.flowchart import CLASSES
from internvl_chat.contracts import UserError
from internvl_chat.data.records.annotations import load_meta
from internvl_chat.data.synthetic.flowchart import (
    CATEGORY_IDS,
    DRAWN_CLASSES,
    Flowchart,
    FlowchartStyle,
    draw_flowchart,
)
from internvl_chat.data.synthetic.flowchart_dataset import Page, write_flowcharts
from internvl_chat.grounding import DETECTION_QUESTION
from internvl_chat.scoring.box_answers import parse_boxes

SMALL = FlowchartStyle(image_size_px=130, grid=(2, 3))
STYLES = [FlowchartStyle(), SMALL, FlowchartStyle(grid=(1,)), FlowchartStyle(image_size_px=120, grid=(5,))]


def charts(style: FlowchartStyle, count: int = 12) -> list[Flowchart]:
    return [draw_flowchart(np.random.default_rng([3, number]), style) for number in range(count)]


def ink_of(page: Image.Image, box: tuple[int, int, int, int]) -> tuple[int, int, int, int] | None:
    x, y, w, h = box
    return ImageChops.invert(page.crop((x, y, x + w, y + h))).getbbox()


@pytest.mark.parametrize("style", STYLES, ids=["guide", "small", "one cell", "smallest cells"])
def test_every_box_encloses_its_ink_and_nothing_is_left_outside(style: FlowchartStyle) -> None:
    for chart in charts(style):
        rest = chart.page.copy()
        for label, (x, y, w, h) in chart.objects:
            assert x >= 0 and y >= 0 and x + w <= rest.width and y + h <= rest.height
            assert ink_of(chart.page, (x, y, w, h)) == (0, 0, w, h), label
            ImageDraw.Draw(rest).rectangle((x, y, x + w - 1, y + h - 1), fill=255)
        assert rest.getextrema() == (255, 255)


def test_every_cell_holds_one_object_and_every_line_its_head() -> None:
    for chart in charts(FlowchartStyle(grid=(3,))):
        width, height = chart.page.width // 3, chart.page.height // 3
        first = {(x // width, y // height) for _, (x, y, _, _) in chart.objects}
        last = {((x + w - 1) // width, (y + h - 1) // height) for _, (x, y, w, h) in chart.objects}
        assert first == last == {(column, row) for row in range(3) for column in range(3)}
        shapes = [label for label, _ in chart.objects if label != "arrow"]
        assert len(shapes) == 9
        for (label, (x, y, w, h)), (after, (left, top, across, down)) in zip(
            chart.objects, chart.objects[1:], strict=False
        ):
            if label == "arrow":
                assert after == "line"
                assert left <= x and top <= y and x + w <= left + across and y + h <= top + down


def test_pages_and_grids_are_those_of_the_guide() -> None:
    pages = charts(FlowchartStyle(), count=60)
    sizes = {chart.page.size for chart in pages}
    assert all(600 <= width <= 1000 and width - 10 <= height <= 1000 for width, height in sizes)
    assert all(width % 10 == height % 10 == 0 for width, height in sizes) and len(sizes) > 30
    cells = [sum(label != "arrow" for label, _ in chart.objects) for chart in pages]
    assert set(cells) == {4, 9, 16, 25}
    assert cells.count(16) > cells.count(25) > cells.count(9)
    assert {label for chart in pages for label, _ in chart.objects} == CATEGORY_IDS.keys()


def test_shapes_have_their_own_proportions_where_cells_are_not_square() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        _, box = draw_flowchart(rng, FlowchartStyle(classes=("circle",))).objects[0]
        assert box[2] == box[3], "a circle that the cell cuts off, or an ellipse"
        _, box = draw_flowchart(rng, FlowchartStyle(classes=("diamond",))).objects[0]
        assert box[2] % 2 == box[3] % 2 == 1, "a diamond that is not symmetric: the cell cuts it off"


@pytest.mark.parametrize("label", DRAWN_CLASSES)
def test_only_the_chosen_classes_are_drawn(label: str) -> None:
    drawn = {name for chart in charts(FlowchartStyle((label,), 130, (3,)), 3) for name, _ in chart.objects}
    assert drawn == ({"line", "arrow"} if label == "line" else {label})


def test_cells_that_are_too_small_are_refused() -> None:
    with pytest.raises(UserError, match="cells of 20 pixels: expected 24 or more"):
        FlowchartStyle(image_size_px=100)


def test_flags_choices_are_the_classes() -> None:
    assert CLASSES == DRAWN_CLASSES


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flowcharts") / "set"
    write_flowcharts(folder, FlowchartStyle(grid=(2,)), images=7, val_fraction=0.3, seed=11)
    return folder


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_parts_are_disjoint_and_the_meta_file_is_ready(dataset: Path) -> None:
    parts = {part: records(dataset / f"{part}.jsonl") for part in ("train", "val")}
    assert {part: [r["id"] for r in lines] for part, lines in parts.items()} == {
        "train": [0, 1, 2, 3, 4],
        "val": [5, 6],
    }
    for record in parts["train"] + parts["val"]:
        drawn = draw_flowchart(np.random.default_rng([11, record["id"]]), FlowchartStyle(grid=(2,))).page
        written = Image.open(dataset / record["image"])
        assert written.size == (record["width"], record["height"])
        assert np.array_equal(np.asarray(written.convert("L")), np.asarray(drawn))
        assert record["conversations"][0]["value"] == f"<image>\n{DETECTION_QUESTION}"
    (entry,) = load_meta(dataset / "meta.json")
    assert (entry.root, entry.annotation) == (dataset, dataset / "train.jsonl")
    assert json.loads((dataset / "meta.json").read_text())["flowcharts"]["length"] == 5


def normalised(box: list[int], width: int, height: int) -> tuple[int, ...]:
    """The guide's own function, on COCO's x y w h."""
    x, y, w, h = box
    corners = (x / width, y / height, (x + w) / width, (y + h) / height)
    return tuple(min(max(round(v * 1000), 0), 1000) for v in corners)


@pytest.mark.parametrize("part", ["train", "val"])
def test_answers_and_coco_annotations_say_the_same(dataset: Path, part: str) -> None:
    coco = COCO(str(dataset / f"{part}_coco.json"))
    names = {number: category["name"] for number, category in coco.cats.items()}
    for record in records(dataset / f"{part}.jsonl"):
        answer = record["conversations"][1]["value"]
        parsed = parse_boxes(answer)
        assert parsed.faults == ()
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[record["id"]]))
        expected = [
            (names[a["category_id"]], normalised(a["bbox"], record["width"], record["height"])) for a in annotations
        ]
        assert sorted((item.label, item.box) for item in parsed.boxes) == sorted(expected)
        labels = {label for label, _ in expected}
        assert answer.count("<ref>") == len(labels), "boxes of a class stand in one line"
        assert all(a["area"] == a["bbox"][2] * a["bbox"][3] and a["iscrowd"] == 0 for a in annotations)


def test_a_picture_depends_on_its_number_and_the_seed_alone(dataset: Path, tmp_path: Path) -> None:
    style = FlowchartStyle(grid=(2,))
    for folder, seed in (("same", 11), ("other", 12)):
        write_flowcharts(tmp_path / folder, style, images=2, val_fraction=0, seed=seed)
    same = [(tmp_path / "same" / f"images/0000{n}.png").read_bytes() for n in range(2)]
    assert same == [(dataset / f"images/0000{n}.png").read_bytes() for n in range(2)]
    assert same != [(tmp_path / "other" / f"images/0000{n}.png").read_bytes() for n in range(2)]


def test_command_writes_dataset_and_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["flowchart", "--out", tmp_path / "set", "--images", "4", "--val_fraction", "0.25", "--image_size", "90"]
    argv += ["--grid", "1", "2", "--classes", "rec", "circle", "--sheet", tmp_path / "sheet.png", "--sheet_images", "2"]
    assert main([str(word) for word in argv]) == 0
    assert "3 train, 1 val images" in capsys.readouterr().out
    assert Image.open(tmp_path / "sheet.png").width > 2 * 300


def test_a_run_that_was_cut_off_goes_on(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        found = {p.relative_to(folder): p for p in folder.rglob("*") if p.is_file() and p.name != "meta.json"}
        return {str(name): path.read_bytes() for name, path in found.items()}

    folder = tmp_path / "set"
    argv = ["flowchart", "--out", str(folder), "--images", "5", "--image_size", "70", "--grid", "1"]
    assert main(argv) == 0
    whole = files(folder)
    kept = (folder / "images/00003.png").stat().st_mtime_ns
    for lost in ("images/00001.png", "train.jsonl", "val_coco.json"):
        (folder / lost).unlink()
    (folder / "images" / ".00001.png.77.tmp").write_bytes(b"half of it")
    assert main(argv) == 0
    assert files(folder) == whole
    assert (folder / "images/00003.png").stat().st_mtime_ns == kept
    capsys.readouterr()
    assert main([*argv, "--seed", "3"]) == 1
    assert "was begun with another seed" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    assert main(["flowchart", "--out", str(tmp_path / "other")]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert files(folder) == whole


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leaves none to train on"):
        write_flowcharts(tmp_path, SMALL, images=3, val_fraction=1.0, seed=0)
    with pytest.raises(UserError, match="leaves none"):
        write_flowcharts(tmp_path / "new", SMALL, images=3, val_fraction=float("nan"), seed=0)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        write_flowcharts(tmp_path / "file", SMALL, images=3, val_fraction=0, seed=0)


def test_what_is_thinner_than_a_thousandth_keeps_one(tmp_path: Path) -> None:
    page = Page(0, "0.png", 9000, 9000, (("line", (10, 10, 900, 3)), ("line", (10, 10, 900, 40))))
    assert [item.box for item in page.labelled_boxes()] == [(1, 1, 101, 2), (1, 1, 101, 6)]
    assert parse_boxes(page.record()["conversations"][1]["value"]).faults == ()
