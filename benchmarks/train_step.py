"""Time and memory of a training step: all captions of a video in one pass against one caption a pass with all logits.

    python benchmarks/train_step.py --workload W1

Each way runs in a process of its own, so that its peak memory is its own. Both take the gradients of the same captions
and one optimizer step. One caption a pass recomputes all layers, as the original does (`--grad_checkpoint True`); all
captions in one pass recompute as few as the memory allows (`--grad_checkpoint N`). The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STEPS, CURVE_STEPS = 5, 3


def measure(
    workload_name: str, way: str, frames: int, captions: int, steps: int, again: str | None = None
) -> dict[str, float]:
    """Median seconds of so many steps after one to warm up, and the peak memory of this process (or its GPU).

    Args:
        frames, captions: 0 for the workload's.
        again: as --grad_checkpoint says it; None for the way's own.
    """
    import torch

    from benchmarks import workloads
    from internvl_chat.train.throughput import peak_memory_bytes
    from internvl_chat.train.workload import recomputation_asked_for
    from internvl_chat.vision import moved

    workload = getattr(workloads, workload_name)
    workload = replace(workload.with_frames(frames or workload.frames), captions=captions or workload.captions)
    if again is None and way == "separate":
        again = "True"
    if again is not None:
        asked_for = recomputation_asked_for(again, workload.text["num_hidden_layers"])
        workload = replace(workload, recomputation=asked_for or workload.recomputation)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = workloads.build_model(workload, device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    batches: Sequence[Any]
    batches = [workloads.shared_batch(workload)] if way == "shared" else workloads.separate_batches(workload)

    def to_device(batch: dict[str, Any]) -> dict[str, Any]:
        on_device = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        return {**on_device, "vision": moved(batch["vision"], torch.device(device), torch.bfloat16)}

    batches = [to_device(batch) for batch in batches]
    seconds = []
    for _ in range(1 + steps):
        started = time.perf_counter()
        for batch in batches:
            (model(**batch).loss / len(batches)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds[1:]), "bytes": peak_memory_bytes(), "captions": workload.captions}


def in_own_process(workload: str, way: str, frames: int = 0, captions: int = 0, steps: int = STEPS) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.train_step", "--workload", workload, "--way", way]
    command += ["--frames", str(frames), "--captions", str(captions), "--steps", str(steps)]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> str:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    return f"{device}; Python {platform.python_version()}, {packages}"


def compare(workload: str) -> None:
    """Both ways side by side: the table, then the JSON line."""
    shared, separate = (in_own_process(workload, way) for way in ("shared", "separate"))
    per_caption = {name: r["seconds"] / r["captions"] for name, r in (("shared", shared), ("separate", separate))}
    sys.stdout.write(f"{workload}: {machine()}\n\n| way | s per caption | peak GB |\n|---|---|---|\n")
    rows = (("all captions in one pass", "shared", shared), ("one caption a pass, all logits", "separate", separate))
    for label, name, result in rows:
        sys.stdout.write(f"| {label} | {per_caption[name]:.3f} | {result['bytes'] / 1e9:.2f} |\n")
    summary = {
        "seconds_per_caption": round(per_caption["shared"], 4),
        "baseline_seconds_per_caption": round(per_caption["separate"], 4),
        "ratio": round(per_caption["separate"] / per_caption["shared"], 2),
        "memory_ratio": round(shared["bytes"] / separate["bytes"], 3),
    }
    sys.stdout.write("\n" + json.dumps(summary) + "\n")


def cost_curve() -> None:
    """W3: W1 over frames and captions a pass."""
    frames, captions = (8, 16, 32, 64), (1, 2, 3, 4, 5, 8)
    results = {(f, k): in_own_process("W1", "shared", f, k, CURVE_STEPS) for f in frames for k in captions}
    sys.stdout.write(f"W3: {machine()}\n\n| frames | captions | s per caption | x k / that of one | peak GB |\n")
    sys.stdout.write("|---|---|---|---|---|\n")
    summary = {}
    for (f, k), result in results.items():
        excess = result["seconds"] / results[f, 1]["seconds"]
        summary[f"{f}x{k}"] = round(excess, 3)
        sys.stdout.write(f"| {f} | {k} | {result['seconds'] / k:.3f} | {excess:.2f} | {result['bytes'] / 1e9:.2f} |\n")
    growth = {f: round(results[f, 5]["bytes"] / results[f, 1]["bytes"] - 1, 3) for f in frames}
    sys.stdout.write("\n" + json.dumps({"time_of_k_captions_over_one": summary, "memory_growth": growth}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=["W1", "W2", "W3"], default="W1")
    parser.add_argument("--way", choices=["shared", "separate"], help="measure one way in this process, print JSON")
    parser.add_argument("--frames", type=int, default=0, help="instead of the workload's")
    parser.add_argument("--captions", type=int, default=0, help="instead of the workload's")
    parser.add_argument("--steps", type=int, default=STEPS, help="with --way (default: %(default)s)")
    parser.add_argument("--grad_checkpoint", help="with --way: what is computed again, as for training")
    args = parser.parse_args()
    if args.way:
        result = measure(args.workload, args.way, args.frames, args.captions, args.steps, args.grad_checkpoint)
        sys.stdout.write(json.dumps(result) + "\n")
    elif args.workload == "W3":
        cost_curve()
    else:
        compare(args.workload)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
