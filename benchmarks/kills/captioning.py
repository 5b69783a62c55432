"""Kill caption-videos on two ranks at random moments, 20 times, and compare its files with those of an undisturbed run.

    python -m benchmarks.kills.captioning
    python -m benchmarks.kills.captioning --kills 3 --clips 160

Every other kill hits all processes at once, the others one rank alone, which makes torchrun end the rest; both are
SIGKILL. The model is the tiny base of the caption proof. Prints one line a kill; the last line says whether captions,
text files, CogVideoX's layout and the failures are equal byte by byte.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

import psutil

from benchmarks.kills.prediction import REPOSITORY, kill_again_and_again, start
from quickstart.caption_proof import write_broken
from quickstart.synthetic.shape_videos import write_videos

ENTRY = ("-m", "internvl_chat", "caption-videos")
SETTINGS = "--max_new_tokens 24 --batch_tokens 200 --num_workers 0 --txt --layout cogvideox".split()


def final_files(out: Path) -> dict[Path, bytes]:
    """Everything but the progress, by its place in the folder."""
    files = (path for path in out.rglob("*") if path.is_file())
    return {path.relative_to(out): path.read_bytes() for path in files if "progress" not in path.relative_to(out).parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clips", type=int, default=700, help="beside five broken ones")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_videos(folder / "clips", range(args.clips), args.seed)
        write_broken(folder / "clips")
        model = REPOSITORY / "quickstart" / "video_base"
        flags: list[str | Path] = [folder / "clips", "--model", model, *SETTINGS, "--out"]
        calm, killed, log = folder / "calm", folder / "killed", folder / "log.txt"
        # Broken videos make it exit code 1, with which torchrun ends too.
        start([*flags, calm], log, entry=ENTRY).wait()

        def begin() -> psutil.Popen:
            return start([*flags, killed], log, entry=ENTRY)

        def ended(_is_killed: bool) -> bool:
            return (killed / "captions.jsonl").exists()

        kill_again_and_again(begin, killed, log, args.kills, rng, args.clips, ended, ENTRY[-1])
        begin().wait()
        expected, found = final_files(calm), final_files(killed)
        different = sorted(
            str(name) for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        if not expected:
            sys.exit(log.read_text()[-3000:])
        sys.stdout.write(f"{args.kills} kills, {len(expected)} files; different: {', '.join(different) or 'none'}\n")
        sys.exit(bool(different))


if __name__ == "__main__":
    main()
