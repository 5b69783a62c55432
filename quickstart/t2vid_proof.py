"""Do texts as pictures teach what comes first? Few clips and many texts against the clips alone, in as many steps.

    make t2vid-proof

The tiny base answers questions of order and number about shapes that are shown one after the other. Both runs of a
seed share the clips, the recipe and the steps; one of them also sees texts that name such shapes, rendered by
`render-texts`. Everything lands in work_dirs/t2vid_proof; the last line printed is JSON: shares of right answers on
held-out clips.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path

from internvl_chat.files import read_json, write_json
from internvl_chat.steps import run
from quickstart.steps import BASE_MODEL, REPOSITORY, launch
from quickstart.synthetic.sequences import LENGTH, write_clips, write_texts

CLIPS, QUESTIONS, TEXTS, HELD_OUT, MAX_STEPS = 200, 4, 4000, 300, 1200
SEEDS = (0, 1, 2)
SCRIPT = "shell/t2vid/internvl_mix_30k.sh"
# A frame is one tile of 80 pixels, and a small model learns at a higher rate; nothing need be put aside on the CPU.
TINY_FLAGS = (
    f"--force_image_size 80 --min_num_frame {LENGTH} --max_num_frame {LENGTH} --dynamic_image_size False "
    "--use_thumbnail False --dataloader_num_workers 1 --grad_checkpoint False --attn_implementation eager "
    "--group_by_length False --logging_steps 50 --learning_rate 1.5e-3 --save_only_model False "
    "--deepspeed shell/deepspeed/zero_stage1_config.json"
).split()
# A page of two words, large enough for the tile: a shape a picture, as a clip's frame has one.
PAGE_FLAGS = "--page_px 80 --font_px 16 --margin_px 1 --max_words 2".split()


def make_data(folder: Path) -> tuple[Path, Path]:
    """The meta JSON of the clips alone and of the mix, which draws two texts a clip."""
    annotation = write_clips(folder / "clips", "clip", CLIPS, QUESTIONS, seed=1)
    write_clips(folder / "held_out", "clip", HELD_OUT, 1, seed=2)
    write_texts(folder / "texts.json", TEXTS, seed=3)
    command = [sys.executable, "-m", "internvl_chat", "render-texts", folder / "texts.json", "--out", folder / "texts"]
    run([*command, *PAGE_FLAGS, "--sheet", folder / "texts.png"])
    clips = {"root": str(folder / "clips"), "annotation": str(annotation)}
    write_json(folder / "clips.json", {"clips": clips})
    texts = read_json(folder / "texts" / "meta.json")["texts"]
    write_json(folder / "mix.json", {"clips": {**clips, "weight": 1}, "texts": {**texts, "weight": 2}})
    return folder / "clips.json", folder / "mix.json"


def share_right(model: Path, held_out: Path, answers: Path) -> float:
    """The share of questions whose answer is right to the letter."""
    command = [sys.executable, "-m", "internvl_chat", "answer", "--model", model, "--records", held_out]
    run([*command, "--out", answers, "--num_frames", LENGTH, "--max_new_tokens", "8"])
    said = [json.loads(line)["answer"] for line in answers.read_text().splitlines()]
    right = [json.loads(line)["conversations"][1]["value"] for line in held_out.read_text().splitlines()]
    return sum(a == b for a, b in zip(said, right, strict=True)) / len(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max_steps", type=int, default=MAX_STEPS, help="of each run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="(default: 0 1 2)")
    args = parser.parse_args()

    folder = REPOSITORY / "work_dirs" / "t2vid_proof"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    clips, mix = make_data(folder)
    held_out = folder / "held_out" / "clip.jsonl"
    scores: dict[str, list[float]] = {"clips alone": [], "clips and texts": []}
    for seed in args.seeds:
        for name, meta in zip(scores, (clips, mix), strict=True):
            output = folder / f"{name.replace(' ', '_')}_{seed}"
            launch(SCRIPT, meta, output, [*TINY_FLAGS, "--seed", str(seed)], max_steps=args.max_steps)
            scores[name].append(round(share_right(output, held_out, output / "answers.jsonl"), 4))
    sys.stdout.write("\n| trained on | right answers, mean | lowest to highest |\n|---|---|---|\n")
    for name, shares in scores.items():
        sys.stdout.write(f"| {name} | {statistics.mean(shares):.3f} | {min(shares):.3f} to {max(shares):.3f} |\n")
    base = round(share_right(BASE_MODEL, held_out, folder / "base.jsonl"), 4)
    sys.stdout.write("\n" + json.dumps({**scores, "base": base, "steps": args.max_steps}) + "\n")


if __name__ == "__main__":
    main()
