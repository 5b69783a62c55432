"""Prove speed and memory on the GPU at hand; without one, the miniature on the CPU shows that the proof runs.

    python -m benchmarks.gpu_proof --out work_dirs/gpu_proof

Needs torch, torchvision, transformers, peft, accelerate, timm and safetensors, but no network and no weights: they are
drawn at the geometry of InternVL3-8B. Each part runs in a process of its own, as long as it may; what it measured is
in gpu_proof.jsonl at once, and as a table in gpu_proof.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from benchmarks.gpu_proof.parts import PARTS
from benchmarks.gpu_proof.running import TABLE_NAME, run_parts
from benchmarks.gpu_proof.scale import FULL, TINY


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="gpu_proof", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("work_dirs/gpu_proof"), help="folder (default: %(default)s)")
    parser.add_argument("--limit_s", type=float, default=470, help="for all parts together (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="only these (default: all)")
    parser.add_argument("--tiny", action="store_true", help="a miniature, as the tests run it")
    parser.add_argument("--print", dest="printed", action="store_true", help="measure here, print the rows, keep none")
    args = parser.parse_args()
    if args.printed:
        logging.disable(logging.WARNING)
        for part in args.parts:
            for row in PARTS[part].measure(TINY if args.tiny else FULL):
                sys.stdout.write(json.dumps(row) + "\n")
                sys.stdout.flush()
        return
    flags = ["--print", *(["--tiny"] if args.tiny else [])]
    commands = {part: [sys.executable, "-m", "benchmarks.gpu_proof", *flags, "--parts", part] for part in args.parts}
    whole = run_parts(commands, {part: PARTS[part].limit_s for part in args.parts}, args.out, args.limit_s)
    sys.stdout.write((args.out / TABLE_NAME).read_text(encoding="utf-8"))
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
