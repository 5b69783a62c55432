"""The entries of a meta JSON, each by itself, so that one that cannot be used does not hide the others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.data.checking.faults import Finding
from internvl_chat.data.checking.headers import without_path
from internvl_chat.data.records.annotations import DatasetEntry, entry_of, load_meta
from internvl_chat.files import read_json


def read_entries(meta: Path) -> tuple[list[DatasetEntry], list[Finding]]:
    """The entries that can be used, and a finding for each of the others or for the whole file."""
    try:
        content = read_json(meta)
    except UserError as error:
        is_records = meta.suffix == ".jsonl" and meta.is_file()
        found = "is a file of records" if is_records else without_path(meta, error)
        expected = f"a JSON object whose entries name such files as 'annotation': {meta.name}" if is_records else ""
        return [], [Finding("meta-json", meta, 0, found, expected or "a JSON object")]
    if not isinstance(content, dict) or not content:
        return [], [Finding("meta-json", meta, 0, "holds no object with entries", "one entry a dataset")]
    entries: list[DatasetEntry] = []
    findings: list[Finding] = []
    for name, fields in content.items():
        try:
            entries.append(entry_of(meta, name, fields))
        except UserError as error:
            code, expected = _cause(meta.parent, fields)
            findings.append(Finding(code, meta, 0, without_path(meta, error), expected))
    if not findings:
        findings += _fault_of_the_whole(meta)
    return entries, findings


def _fault_of_the_whole(meta: Path) -> list[Finding]:
    """What is wrong with entries that are right one by one."""
    try:
        load_meta(meta)
    except UserError as error:
        return [Finding("meta-entry", meta, 0, without_path(meta, error), "entries that go together")]
    return []


def _cause(folder: Path, fields: Any) -> tuple[str, str]:
    """Code and expectation for an entry that was refused: a path that is not there, or its form."""
    if isinstance(fields, dict) and isinstance(fields.get("root"), str) and isinstance(fields.get("annotation"), str):
        root, annotation = os.path.expanduser(fields["root"]), os.path.expanduser(fields["annotation"])
        if not os.path.isdir(root) and not os.path.isdir(folder / root):
            return "meta-root", "a folder"
        if not os.path.isfile(annotation) and not os.path.isfile(folder / annotation):
            return "meta-annotation", "an annotation file"
    return "meta-entry", "the documented keys, each with its kind of value"
