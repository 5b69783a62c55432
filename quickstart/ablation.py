"""The method's table on the quickstart's data: every prompt form, without and with box adapters; other controls.

    make ablation

Short runs, held-out clips captioned after each; what is finished is not run again. See
`python -m internvl_chat ablation --help` for the same on data of your own.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from internvl_chat.steps import REPOSITORY, run
from quickstart.run import CATEGORIES, MAX_STEPS, TEST_CLIPS, TRAIN_CLIPS
from quickstart.steps import BASE_MODEL, PREDICTION_FLAGS, SCRIPT, SHAPES_FLAGS, cpu_ranks, make_shapes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max_steps", type=int, default=MAX_STEPS, help="of each run (default: %(default)s)")
    args = parser.parse_args()
    folder = REPOSITORY / "work_dirs" / "quickstart_ablation"
    data = folder / "shapes"
    make_shapes(data, TRAIN_CLIPS, TEST_CLIPS)
    os.environ.update(cpu_ranks(batch_size=16))
    names = [word for category in CATEGORIES for word in ("--object_name", f"{category}=object")]
    run(
        [sys.executable, "-m", "internvl_chat", "ablation", "--captions", data / "train.json", "--root", data]
        + ["--references", data / "references_test.json", "--model", BASE_MODEL, *names]
        + ["--max_steps", args.max_steps, "--script", SCRIPT, "--training_flags", shlex.join(SHAPES_FLAGS)]
        + ["--prediction_flags", shlex.join(PREDICTION_FLAGS), "--out", folder]
    )


if __name__ == "__main__":
    main()
