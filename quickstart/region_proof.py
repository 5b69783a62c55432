"""Region tokens alone on the quickstart's data, beside no control and the box adapter: same base, steps and seeds.

    make region-proof

Prints the shares of exact captions with the object's own box, and with the other object's. The last line is JSON with
the mean shares of region tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

from internvl_chat.data.controls.base import switches
from quickstart.control_table import spread
from quickstart.run import CATEGORIES, MAX_STEPS, TEST_CLIPS, TRAIN_CLIPS
from quickstart.steps import REPOSITORY, annotate, finetune, make_shapes, measure_control

ROWS: dict[str, tuple[str, ...]] = {
    "region_tokens": ("region_tokens",),
    "no_control": (),
    "box_adapter": ("box_adapter",),
}
SHARES = ("right_box", "swapped_box", "swapped_box_same_category")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(default: %(default)s)")
    parser.add_argument("--max_steps", type=int, default=MAX_STEPS, help="of each run (default: %(default)s)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="(default: all)")
    args = parser.parse_args()

    started = time.time()
    folder = REPOSITORY / "work_dirs" / "region_proof"
    data = folder / "shapes"
    make_shapes(data, TRAIN_CLIPS, TEST_CLIPS)
    meta = annotate(data, CATEGORIES)
    lines = [f"| control | {' | '.join(name.replace('_', ' ') for name in SHARES)} |", "|---" * 4 + "|"]
    means: dict[str, dict[str, float]] = {}
    for row in args.rows:
        rates = []
        for seed in args.seeds:
            trained = folder / f"{row}-{seed}"
            flags = ["--seed", str(seed), *switches(ROWS[row])]
            finetune(meta, trained, max_steps=args.max_steps, flags=flags)
            rates.append(measure_control(trained, meta))
        means[row] = {name: round(statistics.mean(rate[name] for rate in rates), 4) for name in SHARES}
        cells = [spread([rate[name] for rate in rates]) for name in SHARES]
        lines.append(f"| {row.replace('_', ' ')} | {' | '.join(cells)} |")
    minutes = round((time.time() - started) / 60)
    lines.append(f"\n{len(args.seeds)} seeds, {args.max_steps} steps, {minutes} minutes")
    sys.stdout.write("\n" + "\n".join(lines) + "\n" + json.dumps(means[args.rows[0]]) + "\n")


if __name__ == "__main__":
    main()
