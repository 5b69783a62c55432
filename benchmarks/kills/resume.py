"""Kill a training run at random points, many times, and see that nothing is lost and nothing changes.

    python -m benchmarks.kills.resume --kills 20

Trains the quickstart's tiny base with the shell script on two CPU ranks, once undisturbed and once killed (SIGKILL, all
processes) again and again; every start has another number of loader workers. The losses of all steps and the final
weights must be the same numbers. The last line is JSON; the exit code says whether they were.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "shell/internvl3.0/2nd_finetune/roiattention_ml.sh"
STEPS = 12
FLAGS = (
    f"--force_image_size 80 --min_num_frame 2 --max_num_frame 3 --num_adapter_layers 2 --use_llm_lora 4 "
    f"--max_steps {STEPS} --save_steps 1 --save_total_limit 2 --captions_per_pass 2 --learning_rate 1e-3"
).split()


def start(output_dir: Path, meta: Path, num_workers: int) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        # The script calls torchrun by name: that of this Python.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GPUS": "2",
        "BATCH_SIZE": "4",
        "PER_DEVICE_BATCH_SIZE": "1",
        "MODEL_PATH": "quickstart/base",
        "META_PATH": str(meta),
        "OUTPUT_DIR": str(output_dir),
        "OMP_NUM_THREADS": "1",
    }
    command = ["sh", SCRIPT, *FLAGS, "--overwrite_output_dir", "False", "--dataloader_num_workers", str(num_workers)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill(process: subprocess.Popen[bytes]) -> None:
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    psutil.wait_procs(family, timeout=30)


def losses(output_dir: Path) -> dict[int, float]:
    history = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["loss"] for entry in history if "loss" in entry}


def weights(output_dir: Path) -> dict[str, list[float]]:
    folder = output_dir / f"checkpoint-{STEPS}"
    return {k: t.flatten().tolist() for path in folder.glob("*.safetensors") for k, t in load_file(path).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the points in time (default: %(default)s)")
    args = parser.parse_args()

    from quickstart.steps import annotate, make_shapes

    folder = ROOT / "work_dirs" / "kill_resume"
    shutil.rmtree(folder, ignore_errors=True)
    make_shapes(folder / "shapes", 6, 1)
    meta = annotate(folder / "shapes")

    began = time.monotonic()
    undisturbed = start(folder / "undisturbed", meta, 1)
    if undisturbed.wait():
        sys.exit(f"the undisturbed run failed: see {folder / 'undisturbed' / 'training_log.txt'}")
    whole_s = time.monotonic() - began

    rng = random.Random(args.seed)
    kills = 0
    runs: list[Path] = []

    def put_aside() -> None:
        """The run is over before all kills are done: the next one starts anew."""
        runs.append(folder / f"killed-{len(runs)}")
        shutil.move(folder / "killed", runs[-1])

    while True:
        process = start(folder / "killed", meta, num_workers=kills % 3)
        # Later than the imports, so that a kill meets data, steps and half-written checkpoints.
        wait_s = rng.uniform(0.4, 0.8) * whole_s
        try:
            code = process.wait(timeout=wait_s if kills < args.kills else None)
        except subprocess.TimeoutExpired:
            kill(process)
            kills += 1
            reached = max((int(p.name.split("-")[1]) for p in (folder / "killed").glob("checkpoint-*")), default=0)
            sys.stdout.write(f"kill {kills} after {wait_s:.1f} s, at checkpoint {reached}\n")
            sys.stdout.flush()
            if reached == STEPS and kills < args.kills:
                put_aside()
            continue
        if code:
            sys.exit(f"the killed run failed: see {folder / 'killed' / 'training_log.txt'}")
        if kills >= args.kills:
            break
        put_aside()

    finished = [run for run in [*runs, folder / "killed"] if (run / "trainer_state.json").is_file()]
    expected_losses, expected_weights = losses(folder / "undisturbed"), weights(folder / "undisturbed")
    same = all(losses(run) == expected_losses and weights(run) == expected_weights for run in finished)
    report = {"kills": kills, "runs_compared": len(finished), "steps": STEPS, "same_losses_and_weights": same}
    sys.stdout.write(json.dumps(report) + "\n")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
