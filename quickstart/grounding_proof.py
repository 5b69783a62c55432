"""The tiny base learns to detect: the full and the LoRA recipe, each scored on pictures that were held out.

    make grounding-proof

Beside them stand the base, which was never shown a box, and the full recipe's answers held against other pictures:
what boxes are worth that do not look. Everything lands in work_dirs/grounding_proof; the last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from internvl_chat.files import write_jsonl
from quickstart.steps import BASE_MODEL, REPOSITORY, answer_stills, detection_scores, launch
from quickstart.synthetic.stills import write_stills

TRAIN_PICTURES, VAL_PICTURES, MAX_STEPS = 6000, 200, 1200
SCRIPT = "shell/internvl3.0/2nd_finetune/internvl3_1b_dynamic_res_2nd_finetune_{recipe}.sh"
# What differs from InternVL3-1B: a picture is one tile of 80 pixels, and a small model learns at a higher rate.
TINY_FLAGS = (
    "--force_image_size 80 --dynamic_image_size False --use_thumbnail False --dataloader_num_workers 1 "
    "--grad_checkpoint False --attn_implementation eager --group_by_length False --logging_steps 50"
).split()
# The base has never written a tag or a digit, so LoRA alone would have to reach an output layer that suppresses them.
RECIPES = {
    "full": "--learning_rate 1.5e-3".split(),
    "lora": (
        "--learning_rate 2e-3 --use_llm_lora 32 --lora_dropout 0 --freeze_mlp False --unfreeze_lm_head True".split()
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), help="(default: both)")
    parser.add_argument("--max_steps", type=int, default=MAX_STEPS, help="of each recipe (default: %(default)s)")
    args = parser.parse_args()

    folder = REPOSITORY / "work_dirs" / "grounding_proof"
    shutil.rmtree(folder, ignore_errors=True)
    meta = write_stills(folder / "stills", TRAIN_PICTURES, VAL_PICTURES)
    held_out = meta.with_name("val.jsonl")

    def ap50(name: str, model: Path) -> float:
        answers = folder / f"{name}.jsonl"
        answer_stills(model, held_out, answers)
        sheet = ["--sheet", folder / f"{name}.png", "--root", held_out.parent]
        return round(detection_scores(answers, held_out, sheet)["ap50"], 4)

    scores = {"base": ap50("base", BASE_MODEL)}
    minutes = {}
    for recipe in args.recipes:
        started = time.monotonic()
        flags = [*TINY_FLAGS, *RECIPES[recipe]]
        launch(SCRIPT.format(recipe=recipe), meta, folder / recipe, flags, max_steps=args.max_steps)
        minutes[recipe] = round((time.monotonic() - started) / 60, 1)
        scores[recipe] = ap50(recipe, folder / recipe)

    lines = [json.loads(line) for line in (folder / f"{args.recipes[0]}.jsonl").read_text().splitlines()]
    turned = [{**line, "id": other["id"]} for line, other in zip(lines, [*lines[1:], lines[0]], strict=True)]
    write_jsonl(folder / "other_picture.jsonl", turned)
    scores["other_picture"] = round(detection_scores(folder / "other_picture.jsonl", held_out)["ap50"], 4)
    sys.stdout.write("\n| AP50 on held-out pictures | |\n|---|---|\n")
    sys.stdout.writelines(f"| {name.replace('_', ' ')} | {score:.3f} |\n" for name, score in scores.items())
    sys.stdout.write("\n" + json.dumps({**scores, "minutes": minutes}) + "\n")


if __name__ == "__main__":
    main()
