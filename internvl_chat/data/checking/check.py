"""The check itself: a meta JSON, all its records and the headers of all their files, in parallel, into one report."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from internvl_chat.boxes import BOX_TEXT_NAME
from internvl_chat.constants import BOX_SCALE
from internvl_chat.contracts import UserError
from internvl_chat.data.checking import box_rules
from internvl_chat.data.checking.faults import KINDS, Fault, Finding
from internvl_chat.data.checking.headers import (
    EXPECTED_OF_DOUBTS,
    BoxFileFacts,
    MediaFacts,
    MediaKind,
    read_box_file,
    read_media,
    without_path,
)
from internvl_chat.data.checking.lines import LineExaminer, LineFacts
from internvl_chat.data.checking.meta import read_entries
from internvl_chat.data.checking.text_boxes import THOUSANDTHS, text_box_findings
from internvl_chat.data.media.sampling import clip_window
from internvl_chat.data.media.sources import MediaHeader, images_header
from internvl_chat.data.media.tiling import choose_grid, grid_views
from internvl_chat.data.records.annotations import DatasetEntry
from internvl_chat.data.records.box_evidence import BoxEvidence, judged_together, kept_small
from internvl_chat.data.records.tracks import boxes_at
from internvl_chat.files import RawRecord, read_text, split_records
from internvl_chat.processes import worker_pool

LINES_A_JOB = 250
FILES_A_JOB = 32

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Budget:
    """What a record's length is reckoned with, as the flags of training have it; defaults are the recipe's."""

    max_seq_length: int = 16384
    max_num_frame: int = 48
    max_dynamic_patch: int = 12
    force_image_size: int = 448
    tokens_per_tile: int = 256


@dataclass(frozen=True)
class CheckedEntry:
    """An entry of the meta JSON with all its lines."""

    entry: DatasetEntry
    lines: list[LineFacts]


@dataclass
class CheckReport:
    """Everything that was read and everything that was found."""

    meta: Path
    entries: list[CheckedEntry] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    media: dict[tuple[MediaKind, Path], MediaFacts] = field(default_factory=dict)
    box_files: dict[Path, BoxFileFacts] = field(default_factory=dict)

    def of_severity(self, severity: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.kind.severity == severity]

    def counts(self) -> Counter[str]:
        """How many findings of each code, errors first, as in the catalogue."""
        return Counter(finding.code for finding in self.findings)


class _Workers:
    """Maps a function over items in processes, or in this one where one worker is asked for."""

    def __init__(self, stack: ExitStack, count: int) -> None:
        self._pool = stack.enter_context(worker_pool(count)) if count > 1 else None

    def map(self, function: Callable[[_Item], _Result], items: Sequence[_Item], chunk: int = 1) -> list[_Result]:
        if self._pool is None or len(items) <= chunk:
            return [function(item) for item in items]
        return list(self._pool.map(function, items, chunksize=chunk))


def check_meta(meta: Path, budget: Budget | None = None, workers: int | None = None) -> CheckReport:
    """Read a meta JSON and all that it leads to; no video frame is decoded, and each file is opened once.

    Args:
        workers: processes; None takes one a core.
    Raises:
        UserError: the meta JSON itself cannot be read or holds no entry.
    """
    report = CheckReport(meta)
    entries, report.findings = read_entries(meta)
    with ExitStack() as stack:
        pool = _Workers(stack, workers or os.cpu_count() or 1)
        report.entries = [CheckedEntry(entry, _read_lines(entry, pool, report)) for entry in entries]
        every = [line for checked in report.entries for line in checked.lines]
        media = list(dict.fromkeys(item for line in every for item in line.media))
        report.media = dict(zip(media, pool.map(_read_medium, media, FILES_A_JOB), strict=True))
        box_files = {line.boxes_path: line.media[0][1] for line in every if line.boxes_path}
        facts = pool.map(_read_boxes, list(box_files.items()), FILES_A_JOB)
        report.box_files = dict(zip(box_files, facts, strict=True))
    for checked in report.entries:
        _judge_entry(checked, report, budget or Budget())
    return report


def _read_medium(item: tuple[MediaKind, Path]) -> MediaFacts:
    return read_media(item[1], item[0])


def _read_boxes(item: tuple[Path, Path]) -> BoxFileFacts:
    return read_box_file(*item)


def _read_lines(entry: DatasetEntry, pool: _Workers, report: CheckReport) -> list[LineFacts]:
    file = entry.annotation
    records: list[RawRecord] = []
    try:
        for record in split_records(read_text(file), file):
            records.append(record)
    except UserError as error:
        report.findings.append(Finding("meta-annotation", file, 0, without_path(file, error), "readable records"))
    if not records:
        if not any(finding.file == file for finding in report.findings):
            report.findings.append(Finding("annotation-empty", file, 0, "holds no records", "one record a line"))
        return []
    jobs = [records[at : at + LINES_A_JOB] for at in range(0, len(records), LINES_A_JOB)]
    lines = [line for job in pool.map(LineExaminer(entry), jobs) for line in job]
    if entry.length not in (None, len(lines)):
        found = f"'length' of {entry.name!r} is {entry.length}"
        report.findings.append(Finding("meta-length", report.meta, 0, found, f"{len(lines)}, the number of records"))
    report.findings += _among_answered([finding for line in lines for finding in line.findings], len(lines))
    report.findings += _repetitions(file, lines)
    return lines


def _among_answered(findings: list[Finding], num_lines: int) -> list[Finding]:
    """Records without an answer are what a model is asked; among others that are to be learnt they are a slip."""
    alone = {finding.line for finding in findings if finding.code == "question-alone"}
    if len(alone) == num_lines:
        return findings
    return [replace(f, code="turn-order") if f.code == "question-alone" else f for f in findings]


def _repetitions(file: Path, lines: Sequence[LineFacts]) -> Iterator[Finding]:
    seen: dict[bytes, int] = {}
    ids: dict[str, tuple[int, str]] = {}
    for line in lines:
        if line.digest in seen:
            yield Finding("record-repeated", file, line.line, f"as line {seen[line.digest]}", "every record once")
        elif line.record_id and (first := ids.get(unicodedata.normalize("NFC", line.record_id))):
            number, other = first
            found = f"id {line.record_id!r} is also that of line {number}"
            if other != line.record_id:
                found = f"id {line.record_id!a} is written as that of line {number}, in another form of Unicode"
            yield Finding("id-repeated", file, line.line, found, "an id of its own")
        seen.setdefault(line.digest, line.line)
        ids.setdefault(unicodedata.normalize("NFC", line.record_id), (line.line, line.record_id))


def _judge_entry(checked: CheckedEntry, report: CheckReport, budget: Budget) -> None:
    """Add what only shows once the files' headers are known."""
    file = checked.entry.annotation
    told: set[Path] = set()
    texts: list[_JudgedText] = []
    extents: list[box_rules.Extent] = []
    stated: list[box_rules.Extent] = []
    reaches: set[tuple[float, float]] = set()
    headers = [_header_of(line, report) for line in checked.lines]
    for line, header in zip(checked.lines, headers, strict=True):
        here = (file, line.line)
        for kind, path in line.media:
            media = report.media[kind, path]
            if media.fault and path not in told:
                told.add(path)
                report.findings.append(Finding(media.fault, path, 0, media.found, f"a readable {kind}", here))
            if media.doubt and path not in told:
                told.add(path)
                report.findings.append(
                    Finding(media.doubt, path, 0, media.found, EXPECTED_OF_DOUBTS[media.doubt], here)
                )
        if line.boxes_path and line.boxes_path not in told:
            told.add(line.boxes_path)
            boxes = report.box_files[line.boxes_path]
            faults = list(box_rules.box_file_faults(boxes, header))
            text = line.media[0][1].with_name(BOX_TEXT_NAME)
            texts.append(_JudgedText(text, here, box_rules.text_evidence(boxes, header)))
            report.findings += [fault.at(line.boxes_path, 0, here) for fault in faults]
            if boxes.boxes is not None and all(KINDS[fault.code].severity == "warning" for fault in faults):
                extents += _extents(boxes.boxes, header)
        faults_here = _line_faults(line, header, budget, checked.entry, stated, reaches)
        report.findings += [fault.at(*here) for fault in faults_here]
    report.findings += _text_findings(file, texts)
    extents += stated
    if box_rules.seem_pixels(extents):
        found = f"the boxes of all {len(extents)} tracks keep within the pixels of their pictures"
        report.findings.append(Finding("box-unit", file, 0, found, THOUSANDTHS))
    elif doubt := box_rules.unit_doubt(stated, "the boxes of the records' tracks"):
        report.findings.append(doubt.at(file, 0))
    elif reach := kept_small(reaches):
        found = f"the boxes of all {len(reaches)} tracks keep to the first {_shares(reach)}"
        expected = "boxes in the unit that the tracks state: are they percents, or of a smaller copy?"
        report.findings.append(Finding("box-unit-doubt", file, 0, found, expected))
    report.findings += text_box_findings(file, list(zip(checked.lines, headers, strict=True)))


class _JudgedText(NamedTuple):
    """What the text beside a video shows, and an annotation line that leads there."""

    text_path: Path
    used_at: tuple[Path, int]
    evidence: BoxEvidence


def _text_findings(file: Path, texts: Sequence[_JudgedText]) -> Iterator[Finding]:
    """Box texts of an annotation that are no x y w h in pixels, judged together: some speak for all."""
    if reach := kept_small(text.evidence.reach for text in texts):
        found = f"the box texts of all videos keep to the first {_shares(reach)}"
        yield Finding("box-unit-doubt", file, 0, found, "pixels of the videos as they are: of another size?")
    judged = judged_together([text.evidence for text in texts])
    for text, evidence in zip(texts, judged, strict=True):
        if fault := box_rules.text_fault(evidence):
            yield fault.at(text.text_path, 0, text.used_at)


def _shares(reach: tuple[float, float]) -> str:
    return f"{reach[0]:.0%} of their pictures' width and {reach[1]:.0%} of the height"


def _header_of(line: LineFacts, report: CheckReport) -> MediaHeader | None:
    """The header of a record's video, or of all its images together; None for text and for unusable files."""
    headers = [report.media[item].header for item in line.media]
    known = [header for header in headers if header is not None]
    if not headers or len(known) < len(headers):
        return None
    if line.is_video:
        return known[0]
    return images_header([(header.sizes_px[0], header.display_at(0)) for header in known])


def _extents(boxes: box_rules.Boxes, header: MediaHeader | None) -> list[box_rules.Extent]:
    extent = box_rules.extent_of(boxes, box_rules.size_px(header))
    return [extent] if extent else []


def _line_faults(
    line: LineFacts,
    header: MediaHeader | None,
    budget: Budget,
    entry: DatasetEntry,
    extents: list[box_rules.Extent],
    reaches: set[tuple[float, float]],
) -> Iterator[Fault]:
    """The faults of a line; `extents` and `reaches` get what is judged together with other lines'."""
    num_tokens = line.text.num_tokens
    if header:
        yield from _media_faults(line, header)
        found: list[Fault] = []
        for track in line.tracks:
            faults = list(box_rules.track_faults(track, header))
            yield from faults
            found += faults
            if not faults and (track.unit, track.order) == ("thousandths", "xyxy"):
                extents += _extents(track.boxes, header)
        if not any(KINDS[fault.code].severity == "error" for fault in found):
            yield from _refused_tracks(line, header, any(fault.code == "track-absent" for fault in found), reaches)
        num_tokens += _media_tokens(line, header, budget, entry)
    if num_tokens > budget.max_seq_length:
        yield Fault("length-budget", f"takes about {num_tokens} tokens", f"at most {budget.max_seq_length}")


def _refused_tracks(
    line: LineFacts, header: MediaHeader, is_told: bool, reaches: set[tuple[float, float]]
) -> Iterator[Fault]:
    """Whatever the rules let pass and training refuses is an error too; `is_told`: that a track shows nothing.

    `reaches` gets how far right and down each track that is taken goes, in shares of its pictures.
    """
    for track in line.rows:
        try:
            boxes = boxes_at(track, np.arange(header.num_pictures), header, "")
        except UserError as error:
            yield Fault("track-refused", str(error).removeprefix(": "), "a track that training takes")
        else:
            right, bottom = (boxes[:, 2:].max(axis=0) / BOX_SCALE).tolist()
            reaches.add((right, bottom))
            if not boxes.any() and not is_told:
                found = f"track {track.name!r} has no box on any of the {len(boxes)} pictures"
                yield Fault("track-absent", found, "a frame in which the object is seen")


def _media_faults(line: LineFacts, header: MediaHeader) -> Iterator[Fault]:
    size = box_rules.size_px(header)
    counts_pixels = any(track.unit == "pixels" for track in line.tracks)
    if line.size_px and size and line.size_px != size and not counts_pixels:
        stated = f"{line.size_px[0]} x {line.size_px[1]}"
        yield Fault("media-size", f"'width' and 'height' say {stated}", f"{size[0]} x {size[1]}, as the file has")
    if line.clip_s:
        seconds = header.timeline.duration_s if header.frames_per_second else 0.0
        try:
            clip_window(line.clip_s, header.timeline)
        except UserError as error:
            yield Fault("clip-range", str(error), f"a part of the {seconds:.2f} s")


def _media_tokens(line: LineFacts, header: MediaHeader, budget: Budget, entry: DatasetEntry) -> int:
    """About how many tokens the pictures take: a label and two marks each, and a box a frame where they are listed."""
    if line.is_video:
        frames = min(budget.max_num_frame, header.num_pictures)
        return frames * (budget.tokens_per_tile + 8 + 30 * line.text.lists_coordinates)
    most = max(1, (entry.max_dynamic_patch or budget.max_dynamic_patch) // max(1, header.num_pictures))
    num_tiles = 0
    for size in header.sizes_px:
        columns, rows = choose_grid(size, 1, most, budget.force_image_size)
        num_tiles += len(grid_views(0, columns, rows, use_thumbnail=True))
    return num_tiles * budget.tokens_per_tile + 2 * header.num_pictures
