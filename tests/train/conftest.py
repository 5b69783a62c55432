"""What the process tests share: a few clips, and the real shell script on two CPU ranks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from internvl_chat.choices import PROMPT_FORMS
from internvl_chat.data.records.annotations import caption_records, read_captions
from internvl_chat.data.records.box_files import find_videos, write_boxes_beside
from internvl_chat.data.synthetic.shapes import write_dataset
from internvl_chat.files import write_json, write_jsonl

REPOSITORY = Path(__file__).resolve().parents[2]
BASE_MODEL = REPOSITORY / "quickstart" / "base"
SCRIPT = REPOSITORY / "shell" / "internvl3.0" / "2nd_finetune" / "roiattention_ml.sh"
SMALL_RUN = (
    "--force_image_size 80 --min_num_frame 2 --max_num_frame 3 --dataloader_num_workers 1 --num_adapter_layers 2 "
    "--use_llm_lora 4 --max_steps 4 --save_steps 2 --save_total_limit 2"
).split()

StartScript = Callable[..., subprocess.Popen[str]]


def settings_of(meta: Path, output_dir: Path) -> dict[str, str]:
    """What a training script reads from its environment: two ranks and two samples a rank and step, one by one."""
    paths = {"MODEL_PATH": str(BASE_MODEL), "META_PATH": str(meta), "OUTPUT_DIR": str(output_dir)}
    return {"GPUS": "2", "BATCH_SIZE": "4", "PER_DEVICE_BATCH_SIZE": "1", **paths}


def free_port() -> int:
    """A port that nobody listens on: another run on this machine does not disturb."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def shapes_meta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Meta JSON of a dataset of three clips, six ids, with its npy boxes."""
    folder = tmp_path_factory.mktemp("shapes")
    root = folder / "clips"
    write_dataset(root, train_clips=3, public_clips=1, private_clips=1, seed=5)
    for video in find_videos(root):
        write_boxes_beside(video)
    records = caption_records(read_captions(root / "train.json"), PROMPT_FORMS["coordinates"])
    write_jsonl(folder / "train.jsonl", records)
    write_json(folder / "meta.json", {"shapes": {"root": str(root), "annotation": str(folder / "train.jsonl")}})
    return folder / "meta.json"


@pytest.fixture(scope="session")
def start_script(shapes_meta: Path) -> StartScript:
    """Start a training script as a user would; returns the running process."""

    def start(
        output_dir: Path, *flags: str, script: Path = SCRIPT, small: Sequence[str] = SMALL_RUN, **settings: str
    ) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            **settings_of(shapes_meta, output_dir),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "MASTER_PORT": str(free_port()),
            **settings,
        }
        return subprocess.Popen(
            ["sh", str(script), *small, *flags],
            cwd=REPOSITORY,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    return start
