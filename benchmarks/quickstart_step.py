"""The quickstart's training, all captions of a prompt in one pass against one caption a pass.

    python benchmarks/quickstart_step.py

Both train the tiny base with the shell script on two CPU ranks under ZeRO-3, with the quickstart's flags. Captions a
second are the log's, the median after the first line. The last line is JSON.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLIPS, LOGGED_STEPS = 60, 3
# An equal number of captions a step would be 16 against 80: each way has the batch that it is used with.
WAYS = {"one caption a pass": (1, 24), "all captions in one pass": (0, 12)}


def captions_per_s(output_dir: Path) -> float:
    history = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
    rates = [line["captions_per_s"] for line in history if "captions_per_s" in line]
    return statistics.median(rates[1:])


def main() -> None:
    from quickstart.run import CATEGORIES
    from quickstart.steps import annotate, finetune, make_shapes

    folder = ROOT / "work_dirs" / "quickstart_step"
    shutil.rmtree(folder, ignore_errors=True)
    make_shapes(folder / "shapes", CLIPS, 1)
    meta = annotate(folder / "shapes", CATEGORIES)
    rates = {}
    for way, (captions_per_pass, steps) in WAYS.items():
        flags = ["--captions_per_pass", str(captions_per_pass), "--logging_steps", str(LOGGED_STEPS)]
        output_dir = folder / way.replace(" ", "_")
        finetune(meta, output_dir, max_steps=steps, flags=flags)
        rates[way] = captions_per_s(output_dir)
    sys.stdout.write("\n| way | captions a second |\n|---|---|\n")
    sys.stdout.writelines(f"| {way} | {rate:.1f} |\n" for way, rate in rates.items())
    slow, fast = rates.values()
    sys.stdout.write("\n" + json.dumps({**rates, "ratio": round(fast / slow, 2)}) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
