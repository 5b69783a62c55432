"""A converter is added as docs/adding/converter.md says: with one file, and convert-data knows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import package_with_example, run_python

pytestmark = pytest.mark.process

_PROBE = """
import sys
from internvl_chat.__main__ import main

sys.exit(main(["convert-data", "--from", "sidecar", *sys.argv[1:]]))
"""


def test_the_example_is_a_converter_with_one_file(tmp_path: Path) -> None:
    package = package_with_example("docs/adding/converter.md", tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, words in enumerate(("a red page", "a blue page")):
        Image.new("RGB", (20 + number, 13), words.split()[1]).save(pictures / f"{number}.jpg")
        (pictures / f"{number}.txt").write_text(f"{words}\n")
    first = f"import sys; sys.path.insert(0, {str(package)!r})\n"
    out = tmp_path / "records.jsonl"
    done = run_python("-c", first + _PROBE, pictures, "--out", out)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["image"], r["conversations"][1]["value"]) for r in records] == [
        ("0.jpg", "a red page"),
        ("1.jpg", "a blue page"),
    ]
    (pictures / "1.txt").unlink()
    done = run_python("-c", first + _PROBE, pictures, "--out", tmp_path / "other.jsonl")
    assert done.returncode == 1 and "1.txt: not found" in done.stderr
    assert not (tmp_path / "other.jsonl").exists()
