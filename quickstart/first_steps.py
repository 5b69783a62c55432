"""The first steps of the quickstart's training, by its script: what `make lowest` runs with old versions."""

from __future__ import annotations

import sys
from pathlib import Path

from internvl_chat.files import read_json
from internvl_chat.steps import REPOSITORY
from quickstart.steps import annotate, finetune, make_shapes

STEPS, CLIPS, TEST_CLIPS = 20, 24, 2


def main() -> None:
    work = REPOSITORY / "work_dirs" / "first_steps"
    make_shapes(work / "data", CLIPS, TEST_CLIPS)
    run = work / "run"
    finetune(annotate(work / "data"), run, max_steps=STEPS, flags=["--logging_steps", "1"])
    losses = losses_of(run)
    sys.stdout.write(f"{len(losses)} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}\n")
    if len(losses) != STEPS or not losses[-1] < losses[0]:
        sys.exit(f"error: expected {STEPS} steps whose loss falls, got {losses}")


def losses_of(run: Path) -> list[float]:
    """Of each step, as the trainer kept them."""
    history = read_json(run / "trainer_state.json")["log_history"]
    return [float(row["loss"]) for row in history if "loss" in row]


if __name__ == "__main__":
    main()
