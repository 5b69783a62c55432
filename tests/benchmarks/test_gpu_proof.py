"""The proof for a GPU in miniature on a CPU, where training's and videos' packages are not installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_proof.parts import PARTS
from benchmarks.gpu_proof.running import RESULTS_NAME, TABLE_NAME, run_parts
from tests.helpers import run_python

pytestmark = pytest.mark.process

# What a machine with torch, transformers, peft, accelerate, timm and safetensors lacks of the requirements.
ABSENT = "deepspeed av decord flash_attn torchcodec cv2 sentencepiece tensorboard pycocoevalcap pycocotools matplotlib"
# Runs a module as if packages were not installed.
_WITHOUT = """
import runpy, sys
absent, target, *sys.argv[1:] = sys.argv[1:]
sys.modules.update(dict.fromkeys(absent.split()))
runpy.run_module(target, run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """Every row of every part, by what it measures: the parts in one process here, which imports torch once."""
    flags = ["--print", "--tiny", "--parts", *PARTS]
    result = run_python("-W", "ignore", "-c", _WITHOUT, ABSENT, "benchmarks.gpu_proof", *flags)
    assert result.returncode == 0, result.stderr[-3000:]
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert len({row["measure"] for row in found}) == len(found)
    return {row["measure"]: row for row in found}


def test_every_part_measures(rows: dict[str, dict[str, Any]]) -> None:
    failed = {name: row["failed"] for name, row in rows.items() if "failed" in row}
    assert failed == {"a clip decoded on one core": "PyAV is not installed here"}
    steps = [row for row in rows.values() if "step_s" in row]
    assert len(steps) >= 4 and all(row["step_s"] > 0 and row["tflops"] > 0 for row in steps)
    assert sum("tokens_per_s" in row for row in rows.values()) == 6
    assert rows["machine"]["card"].startswith("CPU")


def test_decoding_rounds_no_more_than_torch_does(rows: dict[str, dict[str, Any]]) -> None:
    errors = [row for name, row in rows.items() if name.startswith("scores of")]
    assert len(errors) == 4 and all(0 < row["error"] <= 1.5 * row["sdpa_error"] for row in errors)
    gradients = [row for name, row in rows.items() if name.startswith("gradients, ")]
    assert len(gradients) == 3 and all(row["cosine"] > 0.99 for row in gradients)


def test_folded_lora_launches_less(rows: dict[str, dict[str, Any]]) -> None:
    folded, apart = (rows[f"a token, LoRA {how}"]["kernels"] for how in ("folded", "apart"))
    assert 0 < folded < apart
    counted = rows["a training pass, counted"]
    assert counted["kernels"] > folded and counted["waits"] > 0


def test_what_was_measured_is_kept_when_a_part_fails_or_takes_too_long(tmp_path: Path) -> None:
    row = json.dumps({"measure": "a", "s": 0.123456})
    commands = {
        "good": f"print('a warning'); print('{row}')",
        "broken": f"print('{row}'); raise SystemExit('no such kernel')",
        "slow": f"import time; print('{row}', flush=True); time.sleep(60)",
        "late": "print('{}')",
    }
    run = {part: [sys.executable, "-c", code] for part, code in commands.items()}
    assert not run_parts(run, {"good": 30, "broken": 30, "slow": 1, "late": 0}, tmp_path, total_s=60)
    kept = [json.loads(line) for line in (tmp_path / RESULTS_NAME).read_text().splitlines()]
    assert [one["part"] for one in kept if one.get("measure") == "a"] == ["good", "broken", "slow"]
    faults = {one["part"]: one.get("failed") for one in kept if "measure" not in one}
    assert faults == {"good": None, "broken": "no such kernel", "slow": "stopped after 1 s", "late": "no time was left"}
    table = (tmp_path / TABLE_NAME).read_text()
    assert "| good | a | s 0.1235 |" in table and "| slow | all of it | seconds" in table
    assert run_parts({"good": run["good"]}, {"good": 30}, tmp_path, total_s=60)
    assert (tmp_path / RESULTS_NAME).read_text().count("\n") == 2, "a new run starts anew"
