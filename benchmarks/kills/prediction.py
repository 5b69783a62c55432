"""Kill prediction on two ranks at random moments, 20 times, and compare its files with those of an undisturbed run.

    python -m benchmarks.kills.prediction            # about six minutes on two CPU cores
    python -m benchmarks.kills.prediction --kills 3 --clips 24

Every other kill hits all processes at once, the others one rank alone, which makes torchrun end the rest; both are
SIGKILL. The model is the quickstart's tiny base with box adapters of random weights. Prints one line a kill; the last
line says whether result_public.json, result_private.json, the candidates and result.zip are equal byte by byte.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
ENTRY = "eval_const.py"
FINAL_FILES = (
    "result_public.json",
    "result_private.json",
    "candidates_public.json",
    "candidates_private.json",
    "result.zip",
)


def start(flags: Sequence[str | Path], log: Path, num_ranks: int = 2, entry: Sequence[str] = (ENTRY,)) -> psutil.Popen:
    """Start eval_const.py, or another entry, under torchrun; what it prints is appended to `log`."""
    launcher = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        str(num_ranks),
        "--max_restarts",
        "0",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    with log.open("ab") as file:
        return psutil.Popen(
            [sys.executable, *launcher, *entry, *map(str, flags)],
            cwd=REPOSITORY,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def finished_captions(save_path: Path) -> int:
    """Lines that all ranks have written so far."""
    return sum(path.read_bytes().count(b"\n") for path in (save_path / "progress").glob("rank-*.jsonl"))


def kill_after(
    process: psutil.Popen,
    save_path: Path,
    captions: int,
    delay_s: float,
    one_rank: bool = False,
    entry_word: str = ENTRY,
) -> bool:
    """Kill the run `delay_s` after it has finished `captions` more captions.

    Args:
        one_rank: kill one of its ranks alone, and wait until the launcher has ended the others.
        entry_word: by which the command lines of its ranks are known.
    Returns:
        False if the run ended by itself before that.
    """
    aim = finished_captions(save_path) + captions
    while finished_captions(save_path) < aim:
        if process.poll() is not None:
            return False
        time.sleep(0.005)
    time.sleep(delay_s)
    ranks = [child for child in process.children(recursive=True) if entry_word in child.cmdline()]
    victims = ranks[-1:] if one_rank else [process, *process.children(recursive=True)]
    for victim in victims:
        if victim.is_running():
            victim.kill()
    process.wait()
    psutil.wait_procs(ranks)
    return process.returncode != 0


def kill_again_and_again(
    begin: Callable[[], psutil.Popen],
    save_path: Path,
    log: Path,
    kills: int,
    rng: random.Random,
    total: int,
    ended: Callable[[bool], bool],
    entry_word: str = ENTRY,
) -> None:
    """Begin a run, kill it at a random moment, and so on; prints a line a kill, and exits if the run ends before.

    Args:
        begin: starts the run, or another process that goes on with it; its results are in `save_path`.
        total: captions that a whole run writes.
        ended: whether the run came to its end, given what `kill_after` said.
        entry_word: see `kill_after`.
    """
    for number in range(1, kills + 1):
        one_rank = number % 2 == 0
        is_killed = kill_after(begin(), save_path, rng.randint(1, 4), rng.uniform(0, 0.4), one_rank, entry_word)
        if ended(is_killed):
            sys.exit("the run ended before it was killed often enough: give more --clips\n" + log.read_text()[-2000:])
        whom = "one rank" if one_rank else "all processes"
        sys.stdout.write(f"kill {number}, {whom}: {finished_captions(save_path)} of {total} on disk\n")
        sys.stdout.flush()


def make_inputs(folder: Path, clips: int) -> list[str | Path]:
    """Write moving shapes and a captioner to ask about them; returns the flags that name both."""
    import torch

    from internvl_chat.choices import PROMPT_FORMS
    from internvl_chat.data.prompts.encoder import PromptConfig
    from internvl_chat.data.prompts.tokenizer import load_tokenizer
    from internvl_chat.data.records.annotations import caption_records, read_captions
    from internvl_chat.data.records.box_files import find_videos, write_boxes_beside
    from internvl_chat.data.synthetic.shapes import write_dataset
    from internvl_chat.files import write_json, write_jsonl
    from internvl_chat.model.checkpoint import load_base

    root = folder / "shapes"
    write_dataset(root, train_clips=1, public_clips=clips // 2, private_clips=clips - clips // 2)
    for video in find_videos(root):
        write_boxes_beside(video)
    captions = read_captions(root / "train.json")
    write_jsonl(folder / "train.jsonl", caption_records(captions, PROMPT_FORMS["coordinates"]))
    write_json(folder / "meta.json", {"shapes": {"root": str(root), "annotation": str(folder / "train.jsonl")}})
    (root / "references_test.json").unlink()

    base = REPOSITORY / "quickstart" / "base"
    torch.manual_seed(0)
    model = load_base(str(base), num_adapter_layers=5, dtype=torch.float32, image_size_px=80)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".box_adapters." in name and "norm" not in name:
                parameter.normal_(std=0.05)
    model.save_pretrained(folder / "model")
    load_tokenizer(base).save_pretrained(folder / "model")
    PromptConfig.of("internvl2_5", 80, model.config.image_seq_length).save(folder / "model")
    return ["--checkpoint_path", folder / "model", "--meta_path", folder / "meta.json", "--num_frames", "6"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clips", type=int, default=160, help="of two ids each")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        flags = make_inputs(folder, args.clips)
        flags += "--num_beams 2 --temperature 1 --num_candidates 4 --max_new_tokens 80 --batch_tokens 2000".split()
        calm, killed, log = folder / "calm", folder / "killed", folder / "log.txt"
        if start([*flags, "--save_path", calm], log).wait():
            sys.exit(log.read_text())

        def begin() -> psutil.Popen:
            return start([*flags, "--save_path", killed], log)

        kill_again_and_again(begin, killed, log, args.kills, rng, 2 * args.clips, lambda is_killed: not is_killed)
        if begin().wait():
            sys.exit(log.read_text())
        different = [name for name in FINAL_FILES if (calm / name).read_bytes() != (killed / name).read_bytes()]
        sys.stdout.write(f"{args.kills} kills; different files: {', '.join(different) or 'none'}\n")
        sys.exit(bool(different))


if __name__ == "__main__":
    main()
