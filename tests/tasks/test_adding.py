"""A task is added as docs/adding/task.md says: with one file, and it is asked and scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_chat.files import write_jsonl
from tests.helpers import package_with_example, run_python

pytestmark = pytest.mark.process

_PROBE = """
import json, sys
from internvl_chat.__main__ import main
from internvl_chat.choices import TASKS

assert "yes_no" in TASKS
sys.exit(main(["score", "yes_no", "--data", sys.argv[1], "--predictions", sys.argv[2], "--json"]))
"""


def test_the_example_is_a_task_with_one_file(tmp_path: Path) -> None:
    package = package_with_example("docs/adding/task.md", tmp_path)
    words = ["yes", "no", "no", "yes", "no"]
    records = [
        {"id": n, "conversations": [{"from": "human", "value": f"Is {n} odd?"}, {"from": "gpt", "value": word}]}
        for n, word in enumerate(words)
    ]
    write_jsonl(tmp_path / "questions.jsonl", records)
    # Three right, one wrong, and the last one not answered.
    said = ["Yes.", "no, it is not", "No", "no"]
    write_jsonl(tmp_path / "answers.jsonl", ({"id": str(n), "answer": text} for n, text in enumerate(said)))
    first = f"import sys; sys.path.insert(0, {str(package)!r})\n"
    result = run_python("-c", first + _PROBE, tmp_path / "questions.jsonl", tmp_path / "answers.jsonl")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == {"accuracy": 0.6}
