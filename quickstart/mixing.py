"""Does one run learn both? Half pictures to detect in, half clips to caption by box, against each alone.

    make mixing

The three runs share model, recipe and batch; the mixed one takes twice as many steps, so that each half sees as many
prompts of its own as when it is alone. Everything lands in work_dirs/mixing; the last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from internvl_chat.files import read_json, write_json
from quickstart.run import CATEGORIES, TEST_CLIPS, TRAIN_CLIPS
from quickstart.steps import (
    REPOSITORY,
    annotate,
    answer_stills,
    detection_scores,
    finetune,
    make_shapes,
    measure_control,
)
from quickstart.synthetic.stills import write_stills

VAL_PICTURES, MAX_STEPS = 200, 800
# A clip has five captions and two ids, and all captions of an id share a pass: as many passes as there are pictures.
CLIP_REPEATS = 5
TRAIN_PICTURES = TRAIN_CLIPS * 2 * CLIP_REPEATS
# As in the grounding proof, the output layer has tags and digits to learn.
FLAGS = "--dynamic_image_size False --group_by_length False --unfreeze_lm_head True".split()


def share_of(alone: float, mixed: float) -> float:
    """What is left of a score in the mix; none where there was nothing to lose."""
    return round(mixed / alone, 3) if alone else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--max_steps", type=int, default=MAX_STEPS, help="of its own, for each half (default: %(default)s)"
    )
    args = parser.parse_args()

    folder = REPOSITORY / "work_dirs" / "mixing"
    shutil.rmtree(folder, ignore_errors=True)
    make_shapes(folder / "shapes", TRAIN_CLIPS, TEST_CLIPS)
    clips_meta = annotate(folder / "shapes", CATEGORIES)
    stills_meta = write_stills(folder / "stills", TRAIN_PICTURES, VAL_PICTURES)
    clips = {name: {**entry, "repeat_time": CLIP_REPEATS} for name, entry in read_json(clips_meta).items()}
    write_json(folder / "mix.json", {**clips, **read_json(stills_meta)})

    def train(name: str, meta: Path, max_steps: int) -> Path:
        finetune(meta, folder / name, max_steps=max_steps, flags=FLAGS)
        return folder / name

    def boxes_found(model: Path) -> float:
        held_out, answers = stills_meta.with_name("val.jsonl"), folder / f"{model.name}.jsonl"
        answer_stills(model, held_out, answers)
        return detection_scores(answers, held_out)["ap50"]

    def box_obeyed(model: Path) -> float:
        return measure_control(model, clips_meta)["swapped_box"]

    alone = {
        "detection_ap50": boxes_found(train("stills_alone", stills_meta, args.max_steps)),
        "swapped_box": box_obeyed(train("clips_alone", clips_meta, args.max_steps)),
    }
    both = train("mixed", folder / "mix.json", 2 * args.max_steps)
    mixed = {"detection_ap50": boxes_found(both), "swapped_box": box_obeyed(both)}
    scores = {
        name: {"alone": round(score, 4), "mixed": round(mixed[name], 4), "ratio": share_of(score, mixed[name])}
        for name, score in alone.items()
    }
    sys.stdout.write("\n| held out | alone | mixed | mixed / alone |\n|---|---|---|---|\n")
    for name, row in scores.items():
        sys.stdout.write(f"| {name.replace('_', ' ')} | {' | '.join(f'{value:.3f}' for value in row.values())} |\n")
    sys.stdout.write("\n" + json.dumps(scores) + "\n")


if __name__ == "__main__":
    main()
