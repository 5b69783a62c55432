"""What each way of saying which object is meant is worth: train every arm the same way, with three seeds.

    make control-table

Prints the table of the README; the last line is JSON with the mean shares of exact captions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

from quickstart.run import CATEGORIES, MAX_STEPS, TEST_CLIPS, TRAIN_CLIPS
from quickstart.steps import BOTH, REPOSITORY, Arm, annotate, finetune, make_shapes, measure_control

ARMS = (
    Arm("no_control", 0, False),
    Arm("adapter_only", 5, False),
    Arm("coordinates_only", 0, True),
    BOTH,
)


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(default: %(default)s)")
    parser.add_argument("--max_steps", type=int, default=MAX_STEPS, help="(default: %(default)s)")
    args = parser.parse_args()

    started = time.time()
    folder = REPOSITORY / "work_dirs" / "control_table"
    data = folder / "shapes"
    make_shapes(data, TRAIN_CLIPS, TEST_CLIPS)
    metas = {form: annotate(data, form, CATEGORIES) for form in {arm.prompt_form for arm in ARMS}}
    rates: dict[str, list[dict[str, float]]] = {arm.name: [] for arm in ARMS}
    for seed in args.seeds:
        for arm in ARMS:
            trained = folder / f"{arm.name}-{seed}"
            finetune(metas[arm.prompt_form], trained, arm, max_steps=args.max_steps, seed=seed)
            rates[arm.name].append(measure_control(trained, metas[arm.prompt_form]))

    lines = ["| control | right box | other object's box | same, objects of one category |", "|---|---|---|---|"]
    for arm in ARMS:
        cells = [
            spread([rate[key] for rate in rates[arm.name]])
            for key in ("right_box", "swapped_box", "swapped_box_same_category")
        ]
        lines.append(f"| {arm.name.replace('_', ' ')} | {' | '.join(cells)} |")
    lines.append(f"\n{len(args.seeds)} seeds, {args.max_steps} steps, {round((time.time() - started) / 60)} minutes")
    means = {name: round(statistics.mean(rate["right_box"] for rate in runs), 4) for name, runs in rates.items()}
    sys.stdout.write("\n" + "\n".join(lines) + "\n" + json.dumps(means) + "\n")


if __name__ == "__main__":
    main()
