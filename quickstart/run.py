"""The whole path in one command: data, boxes, fine-tuning, captions, scores, proof that the box is obeyed, a report.

    make quickstart

Everything lands in work_dirs/quickstart. The last line printed is JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time

from quickstart.steps import PREDICTION_FLAGS, REPOSITORY, annotate, finetune, make_shapes, measure_control, run

TRAIN_CLIPS, TEST_CLIPS, MAX_STEPS = 600, 50, 210
CATEGORIES = ("circle", "square", "triangle", "cross")


def main() -> None:
    started = float(os.environ.get("MAKE_STARTED", time.time()))
    folder = REPOSITORY / "work_dirs" / "quickstart"
    shutil.rmtree(folder, ignore_errors=True)
    data, trained = folder / "shapes", folder / "train"

    make_shapes(data, TRAIN_CLIPS, TEST_CLIPS)
    meta = annotate(data, CATEGORIES)
    picture = folder / "picture.png"
    run([sys.executable, "-m", "internvl_chat", "picture", "--meta", meta, "--line", "1", "--out", picture])
    finetune(meta, trained, max_steps=MAX_STEPS)
    run(
        [sys.executable, "eval_const.py", "--model", trained, "--meta", meta]
        + ["--out", folder / "results", *PREDICTION_FLAGS]
    )
    sheet = folder / "contact_sheet.png"
    control, report = folder / "control.json", folder / "report.html"
    rates = measure_control(trained, meta, ["--probes", "swap", "null", "--sheet", sheet, "--out", control])
    run(
        [sys.executable, "-m", "internvl_chat", "report", "--control", control, "--tracks", data, "--out", report]
        + ["--references", data / "references_test.json", "--title", "What the box is worth", "--open"]
    )
    sys.stdout.write(
        f"\nwhat the model saw:      {picture}\ntwo boxes, two captions: {sheet}\nreport:                  {report}\n"
    )
    seconds = round(time.time() - started)
    sys.stdout.write(
        json.dumps({"right_box": rates["right_box"], "swapped_box": rates["swapped_box"], "seconds": seconds}) + "\n"
    )


if __name__ == "__main__":
    main()
