"""The steps that the commands of this folder share: each runs a documented command."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from internvl_chat.steps import REPOSITORY, run

BASE_MODEL = REPOSITORY / "quickstart" / "base"
# IntentVCNet's recipe on the tiny base.
SCRIPT = "shell/tiny.sh"

# The recipe is for real clips and their English; the shapes' few words are known, and other frames help.
SHAPES_FLAGS = "--sampling_method rand --unfreeze_lm_head False --group_by_length True".split()
PREDICTION_FLAGS = "--num_frames 6 --max_new_tokens 24".split()


def make_shapes(folder: Path, train_clips: int, test_clips: int, seed: int = 0) -> None:
    """Generate the dataset and its npy boxes, unless the folder already holds them."""
    if not (folder / "other_target.json").is_file():
        python = [sys.executable, "-m", "internvl_chat"]
        sizes = f"--train_clips {train_clips} --public_clips {test_clips} --private_clips {test_clips} --seed {seed}"
        run([*python, "shapes", "--out", folder, *sizes.split()])
    run([sys.executable, "generate_npy_bboxes.py", "--root", folder])


def annotate(data: Path, categories: Sequence[str] = ()) -> Path:
    """Write annotation and meta JSON; `categories` are all called "object", so that no name helps."""
    meta = data.parent / f"{data.name}.json"
    names = [word for category in categories for word in ("--object_name", f"{category}=object")]
    annotation = meta.with_suffix(".jsonl")
    captions = next(p for p in (data / "train.json", data / "captions.json") if p.is_file())
    run(
        [sys.executable, "-m", "internvl_chat", "annotate", "--captions", captions]
        + ["--out", annotation, "--meta_out", meta, "--root", data, *names]
    )
    return meta


def finetune(
    meta: Path,
    output_dir: Path,
    *,
    max_steps: int,
    batch_size: int = 16,
    flags: Sequence[str] = (),
) -> None:
    """Train on shapes, with coordinates and box adapters unless flags say otherwise; see `launch`."""
    launch(SCRIPT, meta, output_dir, [*SHAPES_FLAGS, *flags], max_steps=max_steps, batch_size=batch_size)


def cpu_ranks(batch_size: int) -> dict[str, str]:
    """The environment of a shell script that trains on two CPU ranks; `batch_size` prompts a step."""
    sizes = {"GPUS": "2", "BATCH_SIZE": str(batch_size), "PER_DEVICE_BATCH_SIZE": str(batch_size // 2)}
    return {**sizes, "OMP_NUM_THREADS": "1"}


def launch(
    script: str,
    meta: Path,
    output_dir: Path,
    flags: Sequence[str],
    *,
    max_steps: int,
    batch_size: int = 16,
    base: Path = BASE_MODEL,
) -> None:
    """Train a tiny base with a shell script on two CPU ranks; `batch_size` prompts a step."""
    where = {"MODEL_PATH": str(base), "META_PATH": str(meta), "OUTPUT_DIR": str(output_dir)}
    steps = f"--max_steps {max_steps} --save_steps {max_steps}".split()
    output_dir.mkdir(parents=True, exist_ok=True)
    run(["sh", script, *flags, *steps], {**cpu_ranks(batch_size), **where}, log=output_dir / "launch.log")


def measure_control(checkpoint: Path, meta: Path, flags: Sequence[object] = ()) -> dict[str, float]:
    """Shares of exact captions with the right box and with the other object's."""
    printed = run(
        [sys.executable, "-m", "internvl_chat", "control", "--model", checkpoint, "--meta", meta]
        + [*PREDICTION_FLAGS, *flags]
    )
    return json.loads(printed.strip().splitlines()[-1])


def answer_stills(model: Path, records: Path, answers: Path) -> None:
    """Write the model's answers to a detection set of single tiles."""
    run(
        [sys.executable, "-m", "internvl_chat", "answer", "--model", model, "--records", records, "--out", answers]
        + ["--max_dynamic_patch", "1", "--max_new_tokens", "80"]
    )


def detection_scores(answers: Path, records: Path, flags: Sequence[object] = ()) -> dict[str, float]:
    """AP and counts over all classes, as `score-boxes` gives them."""
    printed = run(
        [sys.executable, "-m", "internvl_chat", "score-boxes", "--predictions", answers, "--references", records]
        + ["--json", *flags]
    )
    return json.loads(printed.strip().splitlines()[-1])["detection"]["overall"]
