"""What each way of saying which object is meant is worth: train every row the same way, with three seeds.

    make control-table
    python -m quickstart.control_table --controls crops --seeds 1

A row for no control, for each control by itself, and for those of IntentVCNet together. The last line is JSON with the
mean shares of exact captions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

from internvl_chat.choices import CONTROLS
from internvl_chat.data.controls.base import switches
from quickstart.run import CATEGORIES, MAX_STEPS, TEST_CLIPS, TRAIN_CLIPS
from quickstart.steps import REPOSITORY, annotate, finetune, make_shapes, measure_control

BOTH = ("box_adapter", "coordinates")


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(default: %(default)s)")
    parser.add_argument("--max_steps", type=int, default=MAX_STEPS, help="(default: %(default)s)")
    parser.add_argument("--controls", nargs="*", choices=CONTROLS, default=CONTROLS, help="(default: all)")
    args = parser.parse_args()

    started = time.time()
    folder = REPOSITORY / "work_dirs" / "control_table"
    data = folder / "shapes"
    make_shapes(data, TRAIN_CLIPS, TEST_CLIPS)
    meta = annotate(data, CATEGORIES)
    rows: dict[str, tuple[str, ...]] = {"no_control": (), **{f"{name}_only": (name,) for name in args.controls}}
    if set(BOTH) <= set(args.controls):
        rows["both"] = BOTH
    rates: dict[str, list[dict[str, float]]] = {row: [] for row in rows}
    for seed in args.seeds:
        for row, controls in rows.items():
            trained = folder / f"{row}-{seed}"
            flags = ["--seed", str(seed), *switches(controls)]
            finetune(meta, trained, max_steps=args.max_steps, flags=flags)
            rates[row].append(measure_control(trained, meta))

    lines = ["| control | right box | other object's box | same, objects of one category |", "|---|---|---|---|"]
    for row, measured in rates.items():
        cells = [
            spread([rate[key] for rate in measured])
            for key in ("right_box", "swapped_box", "swapped_box_same_category")
        ]
        lines.append(f"| {row.replace('_', ' ')} | {' | '.join(cells)} |")
    lines.append(f"\n{len(args.seeds)} seeds, {args.max_steps} steps, {round((time.time() - started) / 60)} minutes")
    means = {name: round(statistics.mean(rate["right_box"] for rate in runs), 4) for name, runs in rates.items()}
    sys.stdout.write("\n" + "\n".join(lines) + "\n" + json.dumps(means) + "\n")


if __name__ == "__main__":
    main()
