"""A tiny CogVLM2-Video learns to describe moving shapes, and captions a folder of videos, some of them broken.

    make caption-proof

Fine-tuned by shell/cogvlm2/finetune_lora.sh on videos and labels in the layout of CogVLM2's own demo, it captions 95
videos that it has not seen and 5 that cannot be read; then it does so again, is killed in the middle and goes on.
Prints the share of exact captions and the failures of both runs, which must be the same line, and files the same to the
byte; then the shares of the base, and of 8 and 4 bits. All lands in work_dirs/caption_proof; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from internvl_chat.inference.video_captions.caption_files import FAILURES_NAME
from internvl_chat.inference.video_captions.clips_shown import DEFAULT_QUESTION
from internvl_chat.inference.video_captions.run_videos import CAPTIONS_NAME, PROGRESS_NAME
from quickstart.steps import REPOSITORY, launch, run
from quickstart.synthetic.shape_videos import write_labels, write_videos

TRAIN_VIDEOS, HELD_OUT, MAX_STEPS = 600, 95, 200
BASE = REPOSITORY / "quickstart" / "video_base"
SCRIPT = "shell/cogvlm2/finetune_lora.sh"
# What differs from CogVLM2-Caption's geometry and from a GPU node: frames of 60 pixels, and a rate for a small model.
TINY_FLAGS = (
    "--force_image_size 60 --dataloader_num_workers 1 --use_llm_lora 32 --lora_dropout 0 --grad_checkpoint False "
    "--attn_implementation eager --learning_rate 2e-3 --group_by_length False --logging_steps 25"
).split()
# Few captions a batch, so that there is a middle to be killed in.
CAPTION_FLAGS = "--max_new_tokens 24 --batch_tokens 400 --num_workers 1".split()


def write_broken(clips: Path) -> list[str]:
    """Five files that are called videos and are none; returns their names."""
    whole = next(iter(sorted(clips.glob("*.mp4")))).read_bytes()
    noise = np.random.default_rng(0).bytes(5000)
    content = {
        "broken-cut.mp4": whole[: len(whole) // 2],
        "broken-empty.mp4": b"",
        "broken-head.mp4": whole[:200] + noise,
        "broken-noise.mkv": noise,
        "broken-text.webm": b"this is no video\n",
    }
    for name, data in content.items():
        (clips / name).write_bytes(data)
    return sorted(content)


def start(clips: Path, model: Path, out: Path, flags: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start the command; what it prints is in OUT.log."""
    words = [sys.executable, "-m", "internvl_chat", "caption-videos", clips, "--model", model, "--out", out]
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen([*map(str, words), *CAPTION_FLAGS, *flags], cwd=REPOSITORY, stdout=log, stderr=log)


def finish(process: subprocess.Popen[bytes], out: Path) -> None:
    """Wait for a run that names broken videos, which is exit code 1."""
    if process.wait() != 1 or not (out / FAILURES_NAME).is_file():
        sys.exit(f"caption-videos ended with {process.returncode}:\n{out.with_suffix('.log').read_text()[-3000:]}")


def finished(out: Path) -> int:
    """Captions that are on disk."""
    return sum(path.read_bytes().count(b"\n") for path in (out / PROGRESS_NAME).glob("*.jsonl"))


def outcome(out: Path, captions: Mapping[str, str]) -> tuple[float, str]:
    """The share of exact captions, and the line that says it and names the failures."""
    said = [json.loads(line) for line in (out / CAPTIONS_NAME).read_text().splitlines()]
    failures = [json.loads(line)["video"] for line in (out / FAILURES_NAME).read_text().splitlines()]
    exact = sum(captions[record["video"]] == record["caption"].strip() for record in said) / len(captions)
    return exact, f"exact captions: {exact:.3f} of {len(captions)}; failures: {', '.join(failures)}\n"


def killed_in_the_middle(clips: Path, model: Path, out: Path) -> None:
    """Kill a run when it has finished some captions, and let another go on."""
    process = start(clips, model, out)
    while finished(out) < HELD_OUT // 3 and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    if (out / CAPTIONS_NAME).exists():
        sys.exit("the run was over before it was killed")
    sys.stdout.write(f"killed with {finished(out)} of {HELD_OUT} captions on disk\n")
    finish(start(clips, model, out), out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max_steps", type=int, default=MAX_STEPS, help="(default: %(default)s)")
    args = parser.parse_args()

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    began = time.monotonic()
    folder = REPOSITORY / "work_dirs" / "caption_proof"
    shutil.rmtree(folder, ignore_errors=True)
    train, clips, trained = folder / "train", folder / "clips", folder / "lora"
    write_labels(train / "labels", write_videos(train / "videos", range(TRAIN_VIDEOS), seed=0), [DEFAULT_QUESTION])
    captions = write_videos(clips, range(HELD_OUT), seed=1)
    broken = write_broken(clips)
    records, meta = folder / "records.jsonl", folder / "meta.json"
    run(
        [sys.executable, "-m", "internvl_chat", "convert-data", "--from", "cogvlm2", train]
        + ["--out", records, "--meta_out", meta]
    )
    launch(SCRIPT, meta, trained, TINY_FLAGS, max_steps=args.max_steps, base=BASE)

    calm, killed = folder / "calm", folder / "killed"
    finish(start(clips, trained, calm), calm)
    exact, line = outcome(calm, captions)
    sys.stdout.write("\n" + line)
    killed_in_the_middle(clips, trained, killed)
    line_again = outcome(killed, captions)[1]
    sys.stdout.write(line_again)
    same = all((calm / name).read_bytes() == (killed / name).read_bytes() for name in (CAPTIONS_NAME, FAILURES_NAME))

    shares = {"exact": round(exact, 3)}
    for name, model, flags in (
        ("base", BASE, ()),
        ("exact_8_bits", trained, ("--quantize", "8")),
        ("exact_4_bits", trained, ("--quantize", "4")),
    ):
        finish(start(clips, model, folder / name, flags), folder / name)
        shares[name] = round(outcome(folder / name, captions)[0], 3)
    failures = [json.loads(row)["video"] for row in (calm / FAILURES_NAME).read_text().splitlines()]
    holds = same and line == line_again and exact >= 0.9 and failures == broken
    minutes = round((time.monotonic() - began) / 60, 1)
    result = {**shares, "failures": len(failures), "same_after_kill": same, "minutes": minutes}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(not holds)


if __name__ == "__main__":
    main()
