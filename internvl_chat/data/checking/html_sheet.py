"""The report as one HTML file with pictures of the records in question, and of some sound ones."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from internvl_chat.boxes import BoxArray
from internvl_chat.constants import BOX_SCALE
from internvl_chat.contracts import UserError
from internvl_chat.data.checking.check import CheckedEntry, CheckReport
from internvl_chat.data.checking.faults import Finding
from internvl_chat.data.checking.findings import by_kind, summary
from internvl_chat.data.checking.headers import sample_of
from internvl_chat.data.checking.lines import LineFacts
from internvl_chat.data.media.drawing import Strip, contact_sheet
from internvl_chat.data.media.sampling import sample_frames
from internvl_chat.data.media.sources import MediaHeader, read_media_header, read_pictures
from internvl_chat.data.records.annotations import DatasetEntry
from internvl_chat.data.records.tracks import boxes_at
from internvl_chat.files import parse_json, read_text, split_records, write_text

PICTURES_A_KIND, PICTURES_AN_ENTRY, FRAMES_A_PICTURE = 2, 3, 4
FINDINGS_A_KIND, BOXES_A_PICTURE = 50, 6
_TEXT_SHOWN = 300


@dataclass(frozen=True)
class _Picture:
    where: str
    jpeg: str


def write_sheet(report: CheckReport, path: Path) -> None:
    """Write the HTML sheet; it needs no other file."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pictures = _Pictures(report)
    environment = Environment(
        loader=PackageLoader(__package__, ""), autoescape=True, trim_blocks=True, undefined=StrictUndefined
    )
    text = environment.get_template("html_sheet.html.j2").render(
        meta=str(report.meta),
        summary=summary(report),
        shown=FINDINGS_A_KIND,
        kinds=[(kind, findings, pictures.of_findings(findings)) for kind, findings in by_kind(report)],
        samples=[(checked.entry.name, pictures.of_entry(checked)) for checked in report.entries],
    )
    write_text(path, text)


class _Pictures:
    """Draws records by annotation file and line; what cannot be drawn has no picture."""

    def __init__(self, report: CheckReport) -> None:
        self._lines = {
            (checked.entry.annotation, line.line): (checked.entry, line)
            for checked in report.entries
            for line in checked.lines
        }

    def of_findings(self, findings: Iterable[Finding]) -> list[_Picture]:
        places = dict.fromkeys(finding.used_at or (finding.file, finding.line) for finding in findings)
        return list(islice(self._drawn(places), PICTURES_A_KIND))

    def of_entry(self, checked: CheckedEntry) -> list[_Picture]:
        """The first record of each of the entry's first files."""
        lines = {line.media[0]: line.line for line in reversed(checked.lines) if line.media}
        places = sorted((checked.entry.annotation, line) for line in lines.values())
        return list(islice(self._drawn(places), PICTURES_AN_ENTRY))

    def _drawn(self, places: Iterable[tuple[Path, int]]) -> Iterator[_Picture]:
        # Looking further would open every broken file again.
        for place in islice(places, 3 * PICTURES_AN_ENTRY):
            if place in self._lines and self._lines[place][1].media:
                try:
                    yield _Picture(f"{place[0]}:{place[1]}", self._jpeg(place))
                except (UserError, OSError):
                    continue

    def _jpeg(self, place: tuple[Path, int]) -> str:
        entry, line = self._lines[place]
        kind, path = line.media[0]
        shown = sample_of(path, kind)
        header = read_media_header(shown)
        count = min(FRAMES_A_PICTURE, header.num_pictures)
        indices = sample_frames(count, header.num_pictures, "centre")
        pictures = read_pictures(shown, indices)
        boxes = _boxes_of(entry, line, header, indices)
        if boxes is not None and kind == "image":
            pictures = [pictures[0]] * len(boxes)
        texts = [f"[{turn.speaker}] {turn.text}"[:_TEXT_SHOWN] for turn in line.text.turns]
        buffer = io.BytesIO()
        contact_sheet([Strip(pictures, boxes, [f"[{place[0].name}:{place[1]}]", *texts])]).save(buffer, "JPEG")
        return base64.b64encode(buffer.getvalue()).decode("ascii")


def _boxes_of(
    entry: DatasetEntry, line: LineFacts, header: MediaHeader, indices: npt.NDArray[np.integer]
) -> BoxArray | None:
    """The boxes to draw: those of the first track at these frames, or some that the texts of a picture hold."""
    if not line.is_video and line.text.boxes:
        return np.nan_to_num(np.clip(line.text.boxes[:BOXES_A_PICTURE], 0, BOX_SCALE)).astype(np.int64)
    try:
        source = f"{entry.annotation}:{line.line}"
        for raw in split_records(read_text(entry.annotation), entry.annotation):
            if raw.line == line.line:
                sample = entry.reader().read(parse_json(raw.text, source), source)
                return boxes_at(sample.tracks[0], indices, header, source) if sample.tracks else None
    except UserError:
        # What is wrong with the boxes stands beside the picture.
        return None
    return None
