"""What was found, as text for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from internvl_chat.data.checking.check import CheckReport
from internvl_chat.data.checking.faults import KINDS, Finding, Kind


def by_kind(report: CheckReport) -> Iterator[tuple[Kind, list[Finding]]]:
    """The findings of each kind that occurs, errors before warnings."""
    for kind in KINDS.values():
        findings = [finding for finding in report.findings if finding.code == kind.code]
        if findings:
            yield kind, findings


def summary(report: CheckReport) -> str:
    """One line: what was read and how many faults it has."""
    num_records = sum(len(checked.lines) for checked in report.entries)
    num_videos = sum(kind == "video" for kind, _ in report.media)
    return (
        f"{_counted(len(report.of_severity('error')), 'error')}, "
        f"{_counted(len(report.of_severity('warning')), 'warning')} in {_counted(num_records, 'record')}, "
        f"{_counted(num_videos, 'video')}, {_counted(len(report.media) - num_videos, 'picture')}, "
        f"{_counted(len(report.box_files), 'box file')}"
    )


def as_text(report: CheckReport, shown: int) -> str:
    """The findings kind by kind, at most `shown` of each, and the summary."""
    lines = []
    for kind, findings in by_kind(report):
        lines.append(f"{kind.severity} {kind.code} ({len(findings)}): {kind.title}; {kind.advice}")
        lines += [f"  {finding}" for finding in findings[:shown]]
        if len(findings) > shown:
            lines.append(f"  and {len(findings) - shown} more")
    text = "\n".join([*lines, summary(report)]) + "\n"
    # A broken file may be named by half of a character pair, which no terminal takes.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def as_json(report: CheckReport) -> dict[str, Any]:
    """The whole report; `line` is null for a file as a whole."""
    return {
        "meta": str(report.meta),
        "errors": len(report.of_severity("error")),
        "warnings": len(report.of_severity("warning")),
        "counts": {kind.code: len(findings) for kind, findings in by_kind(report)},
        "records": {checked.entry.name: len(checked.lines) for checked in report.entries},
        "findings": [_finding_json(finding) for finding in report.findings],
    }


def _finding_json(finding: Finding) -> dict[str, Any]:
    used = finding.used_at
    return {
        "code": finding.code,
        "severity": finding.kind.severity,
        "file": str(finding.file),
        "line": finding.line or None,
        "found": finding.found,
        "expected": finding.expected,
        "advice": finding.kind.advice,
        "repairable": finding.kind.repairable,
        "used_at": f"{used[0]}:{used[1]}" if used else None,
    }


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
