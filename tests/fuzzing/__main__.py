"""The long run: several processes, each with its own seeds, and the count of what was tried."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from internvl_chat.commands.options import count, positive_int

# So many of a hundred inputs are drawn by Hypothesis, in six kinds; and so many are good, with the truth known.
DRAWN_PERCENT, DRAWN_KINDS, GOOD_PERCENT = 30, 6, 5


def work(first: int, number: int, drawn: int, good: int) -> int:
    """One process's share; prints its counts, or what failed."""
    import torch

    from tests.fuzzing.garden import FuzzFailure, Garden
    from tests.fuzzing.runs import run_bytes, run_drawn, run_good

    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        garden = Garden(Path(folder))
        try:
            run_good(garden, first, good)
            if drawn:
                run_drawn(garden, first, drawn)
            run_bytes(garden, first, number, lambda at: sys.stderr.write(f"{at}\r"))
        except FuzzFailure as error:
            sys.stdout.write(f"failed: {error}\n")
            return 1
    sys.stdout.write(f"{garden.counts['read']} {garden.counts['refused']} {len(garden.mutable)}\n")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument("--count", type=positive_int, default=10_000, help="inputs (default: %(default)s)")
    parser.add_argument("--first", type=count, default=0, help="first seed (default: %(default)s)")
    parser.add_argument("--workers", type=positive_int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--share", type=int, nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.share:
        return work(args.first, *args.share)
    workers = min(args.workers, args.count)
    drawn = args.count * DRAWN_PERCENT // 100 // DRAWN_KINDS // workers
    good = args.count * GOOD_PERCENT // 100 // workers
    each = -(-args.count // workers) - drawn * DRAWN_KINDS - good
    started = time.perf_counter()
    jobs = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.fuzzing",
                "--first",
                str(args.first + i * each),
                "--share",
                str(each),
                str(drawn),
                str(good),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(workers)
    ]
    read = refused = files = 0
    for job in jobs:
        out, err = job.communicate()
        if job.returncode:
            sys.stdout.write(out or f"died with {job.returncode} at {err[-3000:]}\n")
            return 1
        counts = [int(word) for word in out.split()[-3:]]
        read, refused, files = read + counts[0], refused + counts[1], counts[2]
    sys.stdout.write(
        f"{read + refused} mutated inputs of {files} files: {read} read, {refused} refused with their names, "
        f"none crashed, hung, leaked or wrote elsewhere; {good * workers} good records, all boxes on their objects; "
        f"{time.perf_counter() - started:.0f} s\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
