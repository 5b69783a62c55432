"""Parts of the proof in processes of their own: what each says is kept at once, and none takes the others' time."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS_NAME, TABLE_NAME = "gpu_proof.jsonl", "gpu_proof.md"
_SHOWN_DIGITS = 4


def run_parts(commands: Mapping[str, Sequence[str]], limits_s: Mapping[str, float], out: Path, total_s: float) -> bool:
    """Run each command, and append its JSON lines to the results in `out` as they come; then write the table.

    Args:
        limits_s: of each part; what is left of `total_s` where that is less.
    Returns:
        Whether every part came to its end.
    """
    out.mkdir(parents=True, exist_ok=True)
    results = out / RESULTS_NAME
    results.write_text("", encoding="utf-8")
    deadline = time.monotonic() + total_s
    whole = True
    for part, command in commands.items():
        limit_s = min(limits_s[part], deadline - time.monotonic())
        started = time.monotonic()
        fault = _run(part, command, results, limit_s) if limit_s > 0 else "no time was left"
        end: dict[str, Any] = {"part": part, "seconds": time.monotonic() - started}
        if fault:
            end["failed"] = fault
        _append(results, end)
        whole = whole and fault is None
        (out / TABLE_NAME).write_text(table(results), encoding="utf-8")
    return whole


def _run(part: str, command: Sequence[str], results: Path, limit_s: float) -> str | None:
    """What went wrong, if anything did."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(limit_s, stop)
    # What it says beside its rows must be read all the time, or a full pipe would stop it.
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stderr or ()))
    timer.start()
    reader.start()
    for line in process.stdout:
        if line.startswith("{"):
            _append(results, {"part": part, **json.loads(line)})
    code = process.wait()
    timer.cancel()
    reader.join()
    if late.is_set():
        return f"stopped after {limit_s:.0f} s"
    return None if code == 0 else ("".join(said).strip().splitlines() or [f"exit code {code}"])[-1]


def _append(results: Path, row: Mapping[str, Any]) -> None:
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def table(results: Path) -> str:
    """The rows as Markdown: what was measured, and each value under its name."""
    lines = ["| part | measure | result |", "|---|---|---|"]
    for text in results.read_text(encoding="utf-8").splitlines():
        row = json.loads(text)
        part, measure = row.pop("part"), row.pop("measure", "all of it")
        lines.append(f"| {part} | {measure} | {', '.join(f'{name} {_shown(value)}' for name, value in row.items())} |")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    return f"{value:.{_SHOWN_DIGITS}g}" if isinstance(value, float) else str(value)
