"""A repaired copy of annotations: only what can be mended without guessing, and never in the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from internvl_chat.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from internvl_chat.contracts import UserError
from internvl_chat.data.checking.box_rules import size_px
from internvl_chat.data.checking.check import CheckedEntry, CheckReport
from internvl_chat.data.checking.conversations import ascii_box_digits, break_after_video, renamed_turn
from internvl_chat.data.checking.lines import LineFacts
from internvl_chat.files import json_text, parse_json, read_json, read_text, split_records, write_json


def write_repaired(report: CheckReport, folder: Path) -> Counter[str]:
    """Write a meta JSON of the source's name to `folder`, and beside it each annotation that had a repairable fault.

    Args:
        folder: new or empty.
    Returns:
        How many faults of each code were mended.
    Raises:
        UserError: the folder is not empty, the meta JSON is no object with entries, or records of an annotation
            share a line, by which they are known.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is not empty; give a new folder, nothing is overwritten")
    content = read_json(report.meta)
    if not isinstance(content, dict):
        raise UserError(f"{report.meta}: expected an object with one entry a dataset")
    for checked in report.entries:
        if len({line.line for line in checked.lines}) < len(checked.lines):
            raise UserError(f"{checked.entry.annotation}: several records stand in one line; save it as JSONL first")
    mended: Counter[str] = Counter()
    for number, checked in enumerate(report.entries, start=1):
        source = checked.entry.annotation
        codes = _repairable_codes(checked, report)
        target = folder / f"{number:02d}_{source.stem}.jsonl"
        count = len(checked.lines)
        if any(codes.values()):
            lines = list(_repaired_lines(checked, codes, report, mended))
            folder.mkdir(parents=True, exist_ok=True)
            target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            count = len(lines)
        fields = content[checked.entry.name]
        fields["annotation"] = str((target if any(codes.values()) else source).resolve())
        # What was written relative to the source's place leads elsewhere from the copy's.
        fields["root"] = str(checked.entry.root.resolve())
        if checked.entry.boxes_root is not None and "boxes_root" in fields:
            fields["boxes_root"] = str(checked.entry.boxes_root.resolve())
        mended["meta-length"] += fields.get("length", len(checked.lines)) != len(checked.lines)
        if "length" in fields:
            fields["length"] = count
    write_json(folder / report.meta.name, content)
    return +mended


def _repairable_codes(checked: CheckedEntry, report: CheckReport) -> dict[int, set[str]]:
    """Codes of what can be mended, by line."""
    codes: dict[int, set[str]] = {line.line: set() for line in checked.lines}
    for finding in report.findings:
        if finding.file == checked.entry.annotation and finding.line in codes and finding.code in _REPAIRS:
            codes[finding.line].add(finding.code)
    return codes


def _repaired_lines(
    checked: CheckedEntry, codes: dict[int, set[str]], report: CheckReport, mended: Counter[str]
) -> Iterator[str]:
    """The annotation's records, one a line; what needs no repair, or cannot be read, stays as it is written."""
    path = checked.entry.annotation
    facts = {line.line: line for line in checked.lines}
    for raw in split_records(read_text(path), path):
        if codes[raw.line]:
            record = parse_json(raw.text, f"{path}:{raw.line}")
            for code in [code for code in _REPAIRS if code in codes[raw.line]]:
                changed = _REPAIRS[code](record, facts[raw.line], report)
                mended[code] += changed != record
                record = changed
            if record is not None:
                yield json_text(record)
        else:
            yield raw.text if "\n" not in raw.text else json_text(parse_json(raw.text, f"{path}:{raw.line}"))


def _with_turns(record: Any, change: Callable[[dict[str, Any]], dict[str, Any]], speaker: str = "") -> Any:
    """The record with a change to its turns, or to those of one speaker; what is no turn stays as it is."""
    turns = [
        change(turn) if isinstance(turn, dict) and (turn.get("from") == speaker or not speaker) else turn
        for turn in record["conversations"]
    ]
    return {**record, "conversations": turns}


def _rename_turns(record: Any, line: LineFacts, report: CheckReport) -> Any:
    return _with_turns(record, renamed_turn)


def _break_after_video(record: Any, line: LineFacts, report: CheckReport) -> Any:
    def broken(turn: dict[str, Any]) -> dict[str, Any]:
        return {**turn, "value": break_after_video(turn["value"])}

    return _with_turns(record, broken, "human")


def _put_placeholder_first(record: Any, line: LineFacts, report: CheckReport) -> Any:
    placeholder = VIDEO_PLACEHOLDER if line.is_video else IMAGE_PLACEHOLDER
    turns = [dict(turn) for turn in record["conversations"]]
    for first in [turn for turn in turns if turn["from"] == "human"][:1]:
        first["value"] = f"{placeholder}\n{first['value']}"
    return {**record, "conversations": turns}


def _write_ascii_digits(record: Any, line: LineFacts, report: CheckReport) -> Any:
    return _with_turns(record, lambda turn: {**turn, "value": ascii_box_digits(turn["value"])})


def _state_size(record: Any, line: LineFacts, report: CheckReport) -> Any:
    size = size_px(report.media[line.media[0]].header)
    return {**record, "width": size[0], "height": size[1]} if size else record


def _leave_out(record: Any, line: LineFacts, report: CheckReport) -> Any:
    return None


# Applied in this order: a turn has its right keys before its text is looked at.
_REPAIRS: dict[str, Callable[[Any, LineFacts, CheckReport], Any]] = {
    "turn-keys": _rename_turns,
    "turn-speaker": _rename_turns,
    "placeholder-break": _break_after_video,
    "placeholder-missing": _put_placeholder_first,
    "placeholder-video": _put_placeholder_first,
    "box-digits": _write_ascii_digits,
    "media-size": _state_size,
    "record-repeated": _leave_out,
}
