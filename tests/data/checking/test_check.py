"""`python -m internvl_chat check`: every planted fault is found where it is, and nothing else."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from internvl_chat.__main__ import main
from internvl_chat.data.checking import box_rules, headers
from internvl_chat.data.checking.check import CheckReport, check_meta
from internvl_chat.data.checking.faults import KINDS
from internvl_chat.data.checking.headers import BoxFileFacts
from internvl_chat.data.media.sources import MediaHeader
from internvl_chat.data.records.annotations import DatasetEntry, load_meta, read_samples
from internvl_chat.data.records.box_files import PrepareReport, find_videos, prepare_boxes
from tests.data.checking.planted import QUESTION, Place, Workshop, add_clean_records, plant_all, talk
from tests.data.records.test_box_files import erase_frames
from tests.helpers import ROOT, run_python, shared


def places(report: CheckReport) -> list[Place]:
    return sorted((finding.code, finding.file, finding.line) for finding in report.findings)


@pytest.fixture(scope="module")
def clip(shapes_entry: DatasetEntry) -> Path:
    return next(path for path in sorted(shapes_entry.root.glob("*/*/*.mp4")))


@pytest.fixture(scope="module")
def planted(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    shop = Workshop(tmp_path_factory.mktemp("planted"), clip)
    add_clean_records(shop)
    plant_all(shop)
    shop.write()
    return shop


@pytest.fixture(scope="module")
def report(planted: Workshop) -> CheckReport:
    return check_meta(planted.meta, workers=2)


def test_each_planted_fault_is_found_where_it_is_and_nothing_else(planted: Workshop, report: CheckReport) -> None:
    found = places(report)
    assert [place for place in found if place not in planted.expected] == []
    assert found == sorted(planted.expected)


def test_every_kind_of_the_catalogue_is_planted(planted: Workshop) -> None:
    codes = {code for code, _, _ in planted.expected}
    assert codes | {"meta-json"} == KINDS.keys()
    assert len([code for code in codes if KINDS[code].severity == "error"]) >= 25


def test_clean_records_of_every_kind_have_no_fault_and_can_be_read(clip: Path, tmp_path: Path) -> None:
    shop = Workshop(tmp_path, clip)
    add_clean_records(shop)
    report = check_meta(shop.write(), workers=1)
    assert [str(finding) for finding in report.findings] == []
    assert len(read_samples(load_meta(shop.meta)[0])) == len(shop.lines["main"])


def test_prepared_shapes_have_no_fault(shapes_meta: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(shapes_meta), "--workers", "1"]) == 0
    assert capsys.readouterr().out == "0 errors, 0 warnings in 30 records, 6 videos, 0 pictures, 6 box files\n"


def test_each_video_and_each_box_file_is_opened_once(shapes_meta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    for name in ("read_media_header", "read_box_array"):
        read = getattr(headers, name)

        def counted(source: Any, read: Any = read) -> Any:
            opened.append(getattr(source, "video_path", source))
            return read(source)

        monkeypatch.setattr(headers, name, counted)
    check_meta(shapes_meta, workers=1)
    assert len(opened) == len(set(opened)) == 12


def test_no_frame_is_decoded(own_entry: DatasetEntry) -> None:
    for video in own_entry.root.glob("*/*/*.mp4"):
        erase_frames(video)
    report = check_meta(own_entry.annotation.with_name("meta.json"), workers=1)
    assert not report.findings and len(report.media) == 6


def test_exit_code_is_one_for_errors_and_zero_for_warnings(clip: Path, tmp_path: Path) -> None:
    shop = Workshop(tmp_path, clip)
    shop.add({"id": 1, **talk("What?", answer="caf\ufffd")})
    assert main(["check", str(shop.write()), "--workers", "1"]) == 0
    shop.add({"id": 2, **talk("What?", answer="")})
    assert main(["check", str(shop.write()), "--workers", "1"]) == 1


def test_text_report_names_code_place_expectation_and_advice(planted: Workshop) -> None:
    result = run_python("-m", "internvl_chat", "check", planted.meta, "--show", "1")
    assert result.returncode == 1 and result.stderr.startswith("next: mend what is named and check again; ")
    rows = planted.root / "rows" / "rows-1" / "object_bboxes.npy"
    assert f"  {rows}: holds 23 boxes; expected 24, one a frame of the video (used at " in result.stdout
    assert "error box-rows (2): Boxes and frames differ in number; give one box a frame" in result.stdout
    severities = [KINDS[code].severity for code, _, _ in planted.expected]
    counts = f"{severities.count('error')} errors, {severities.count('warning')} warnings in "
    assert result.stdout.splitlines()[-1].startswith(counts)


def test_json_report_holds_every_finding(planted: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(planted.meta), "--json", "--workers", "2"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["errors"] + content["warnings"] == len(content["findings"]) == len(planted.expected)
    assert sum(content["counts"].values()) == len(planted.expected)
    found = {(f["code"], f["file"], f["line"]) for f in content["findings"]}
    assert found == {(code, str(file), line or None) for code, file, line in planted.expected}
    leaving = [f for f in content["findings"] if "none exceeds 1000" in f["found"]]
    assert leaving and all("are they thousandths, or in another order" in f["expected"] for f in leaving)


def test_html_sheet_stands_alone_and_shows_pictures(planted: Workshop, tmp_path: Path) -> None:
    sheet = tmp_path / "new" / "check.html"
    assert main(["check", str(planted.meta), "--html", str(sheet), "--workers", "1"]) == 1
    text = sheet.read_text(encoding="utf-8")
    assert all(f"<code>{code}</code>" in text for code in KINDS if code != "meta-json")
    pictures = re.findall(r'<img alt="[^"]*" src="data:image/jpeg;base64,([^"]+)"', text)
    assert len(pictures) == text.count("<img") >= 20
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0]))).width > 160
    assert "&lt;video&gt;" in text and not re.search(r'(src|href)="(?!data:)', text)


def test_fix_mends_what_it_can_in_a_copy_and_nothing_in_the_source(
    planted: Workshop, report: CheckReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in planted.folder.rglob("*") if path.is_file()}
    out = tmp_path / "fixed"
    assert main(["check", str(planted.meta), "--fix", str(out), "--workers", "1"]) == 1
    assert {path: path.read_bytes() for path in planted.folder.rglob("*") if path.is_file()} == before
    repairable = {code for code, kind in KINDS.items() if kind.repairable}
    again = check_meta(out / "meta.json", workers=1)
    assert not repairable & {finding.code for finding in again.findings}
    said = capsys.readouterr().err
    assert all(f"1 {code}" in said for code in repairable)
    mended = sorted(code for code, _, _ in planted.expected if code in repairable)
    assert sorted([f.code for f in again.findings] + mended) == sorted(code for code, _, _ in planted.expected)


def test_fix_writes_what_was_meant(planted: Workshop, tmp_path: Path) -> None:
    main(["check", str(planted.meta), "--fix", str(tmp_path / "fixed"), "--workers", "1"])
    meta = json.loads((tmp_path / "fixed" / "meta.json").read_text())
    lines = Path(meta["main"]["annotation"]).read_text(encoding="utf-8").splitlines()
    records = {r["id"]: r for r in map(json.loads, (line for line in lines if line != "{not json")) if "id" in r}
    assert "{not json" in lines and len(lines) == len(planted.lines["main"]) - 1 == meta["main"]["length"]
    assert records["text key"] == {"id": "text key", **talk("Who is it?")}
    assert records["user"] == {"id": "user", **talk("Who is it?")}
    assert records["one line"]["conversations"][0]["value"] == f"<video>\n{QUESTION}"
    assert records["none"]["conversations"][0]["value"] == f"<video>\n{QUESTION}"
    assert records["implied"]["conversations"][0]["value"] == "<image>\nWhat is it?"
    assert records["wide"]["conversations"][1]["value"] == "<ref>cup</ref><box>[[1, 2, 30, 40]]</box>"
    assert (records["size"]["width"], records["size"]["height"]) == (320, 240)
    assert meta["short"]["length"] == 1
    assert meta["pixels"]["annotation"] == str(planted.annotation("pixels"))


def test_fix_leaves_no_root_that_leads_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root is relative to its meta JSON, and the copy lies in another folder."""
    (tmp_path / "data").mkdir()
    record = {"id": 1, "conversations": [{"from": "user", "value": "a"}, {"from": "gpt", "value": "b"}]}
    (tmp_path / "data" / "r.jsonl").write_text(json.dumps(record) + "\n")
    fields = {"root": "data", "boxes_root": "data", "annotation": "data/r.jsonl"}
    (tmp_path / "m.json").write_text(json.dumps({"d": fields}))
    monkeypatch.chdir(tmp_path)
    main(["check", "m.json", "--fix", "mended", "--workers", "1"])
    monkeypatch.chdir("/")
    assert main(["check", str(tmp_path / "mended" / "m.json"), "--workers", "1"]) == 0
    mended = json.loads((tmp_path / "mended" / "m.json").read_text())["d"]
    assert mended["root"] == mended["boxes_root"] == str(tmp_path / "data")


def test_fix_refuses_a_folder_that_holds_something(
    shapes_meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    assert main(["check", str(shapes_meta), "--fix", str(tmp_path), "--workers", "1"]) == 1
    assert f"{tmp_path}: is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_fix_refuses_records_that_share_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"id": 1, **talk("one?")}, {"id": 2, **talk("two?", answer="")}]
    (tmp_path / "list.json").write_text(json.dumps(records))
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({"list": {"root": str(tmp_path), "annotation": "list.json"}}))
    main(["check", str(meta), "--fix", str(tmp_path / "fixed"), "--workers", "1"])
    assert "list.json: several records stand in one line; save it as JSONL first" in capsys.readouterr().err
    assert not (tmp_path / "fixed").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"a": 1', "\xff"], ids=["empty", "list", "none", "cut", "latin"])
def test_a_meta_json_that_cannot_be_used_is_a_finding(content: str, tmp_path: Path) -> None:
    meta = tmp_path / "meta.json"
    meta.write_bytes(content.encode("latin-1"))
    assert places(check_meta(meta)) == [("meta-json", meta, 0)]
    assert places(check_meta(tmp_path / "none.json")) == [("meta-json", tmp_path / "none.json", 0)]


def test_a_json_list_is_checked_with_the_lines_its_records_begin_at(tmp_path: Path) -> None:
    records = [{"id": 1, **talk("one?")}, {"id": 2, **talk("two?", answer="")}]
    (tmp_path / "list.json").write_text(json.dumps(records, indent=1))
    (tmp_path / "meta.json").write_text(json.dumps({"list": {"root": str(tmp_path), "annotation": "list.json"}}))
    line = next(i for i, text in enumerate((tmp_path / "list.json").read_text().splitlines(), 1) if '"id": 2' in text)
    assert places(check_meta(tmp_path / "meta.json")) == [("answer-empty", tmp_path / "list.json", line - 1)]


def test_a_list_that_breaks_off_is_a_finding_and_the_rest_is_checked(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('[{"id": 1, "conversations": []},\n{"id": 2,')
    (tmp_path / "meta.json").write_text(json.dumps({"list": {"root": str(tmp_path), "annotation": "list.json"}}))
    found = [(code, line) for code, _, line in places(check_meta(tmp_path / "meta.json"))]
    assert found == [("meta-annotation", 0), ("record-keys", 1)]


def test_real_clips_have_no_fault(tmp_path: Path) -> None:
    root = Path(shutil.copytree(shared("data/real_clips"), tmp_path / "clips"))
    list(prepare_boxes(find_videos(root), workers=1, overwrite=False, report=PrepareReport()))
    argv = ["annotate", "--captions", root / "captions.json", "--out", tmp_path / "lines.jsonl"]
    main([str(arg) for arg in [*argv, "--meta_out", tmp_path / "meta.json", "--root", root]])
    report = check_meta(tmp_path / "meta.json", workers=1)
    assert [str(finding) for finding in report.findings] == []
    assert (len(report.entries[0].lines), len(report.media), len(report.box_files)) == (25, 5, 5)


def test_boxes_of_the_challenge_have_no_wrong_order_or_unit() -> None:
    tracks = json.loads((shared("data/intentvc") / "tracks_32_frames.json").read_text())
    size = (1280, 720)
    header = MediaHeader(32, (size,), 30.0)
    boxes = [np.array(rows) for rows in tracks.values()]
    codes = {fault.code for rows in boxes for fault in box_rules.box_file_faults(BoxFileFacts(rows), header)}
    assert codes <= {"track-degenerate"}
    assert not box_rules.seem_pixels([e for rows in boxes if (e := box_rules.extent_of(rows.astype(float), size))])


def test_the_documentation_lists_every_kind() -> None:
    text = (ROOT / "docs/checks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+?) \| (.+?) \| (yes)? ?\|$", text, re.MULTILINE)
    assert rows == [(k.code, k.title, k.advice, "yes" if k.repairable else "") for k in KINDS.values()]
