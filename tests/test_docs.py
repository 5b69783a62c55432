"""The documented records are records, and the documented flags are flags."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from internvl_chat.data.records.annotations import load_meta
from internvl_chat.data.records.reader import RecordReader
from tests.helpers import ROOT

RECORDS = (ROOT / "docs/records.md").read_text(encoding="utf-8")
META, *EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", RECORDS, re.DOTALL)]


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: str(record["id"]))
def test_an_example_is_a_record(record: dict, tmp_path: Path) -> None:
    assert RecordReader(tmp_path).read(record, "records.md").id == str(record["id"])


def test_the_meta_json_loads_where_its_files_are(tmp_path: Path) -> None:
    for entry in META.values():
        (tmp_path / entry["annotation"]).touch()
        entry["root"] = str(tmp_path)
    (tmp_path / "meta.json").write_text(json.dumps(META))
    assert [entry.name for entry in load_meta(tmp_path / "meta.json")] == list(META)


def test_every_key_and_flag_is_known() -> None:
    from internvl_chat.data.records.annotations import _META_KEYS
    from internvl_chat.train.arguments import RunArguments

    meta_table = RECORDS.split("## The records")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", meta_table, re.MULTILINE)) == set(_META_KEYS)
    flags = set(re.findall(r"--(\w+)", RECORDS))
    assert flags and flags <= {field.name for kind in RunArguments.kinds() for field in fields(kind)}
