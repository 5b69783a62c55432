"""Recipe of the checkpoint that `make demo` opens: the quickstart's own training with fewer weights to carry.

    python -m quickstart.demo_model --output_dir quickstart/demo

Its base stays where it is, so that this folder holds what was trained and no more. Scores on 200 held-out ids are
written to `SCORES.json` beside it.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from internvl_chat.files import read_json, write_json
from quickstart.run import CATEGORIES, TEST_CLIPS, TRAIN_CLIPS
from quickstart.steps import BASE_MODEL, REPOSITORY, annotate, finetune, make_shapes, measure_control

# Box adapters after the last two ViT layers instead of five: a third of the weights, and the box is still obeyed.
FLAGS = "--num_adapter_layers 2".split()
MAX_STEPS = 300
# What it takes to caption; the rest is for going on with training.
KEPT = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "config.json",
    "prompt_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "trained_modules.safetensors",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("quickstart/demo"), help="(default: %(default)s)")
    args = parser.parse_args()

    folder = REPOSITORY / "work_dirs" / "demo_model"
    data, trained = folder / "shapes", folder / "train"
    make_shapes(data, TRAIN_CLIPS, TEST_CLIPS)
    meta = annotate(data, CATEGORIES)
    finetune(meta, trained, max_steps=MAX_STEPS, flags=FLAGS)
    rates = measure_control(trained, meta, ["--probes", "swap", "jitter"])
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copyfile(trained / name, args.output_dir / name)
    # Wherever the repository lies, its base lies beside.
    config = args.output_dir / "config.json"
    base = BASE_MODEL.relative_to(REPOSITORY).as_posix()
    write_json(config, {**read_json(config), "base_model_name_or_path": base})
    write_json(args.output_dir / "SCORES.json", rates | {"steps": MAX_STEPS})


if __name__ == "__main__":
    main()
