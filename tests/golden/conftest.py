"""A dataset whose bytes are the same on every machine, and a run trained on it from the old base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.frozen import OLD, run_script
from tests.golden.media import PRIVATE, PUBLIC, write_media

TRAINING = (
    "--freeze_llm True --freeze_backbone True --use_llm_lora 4 --lora_dropout 0 --num_adapter_layers 2 "
    "--unfreeze_lm_head True --force_image_size 40 --min_num_frame 3 --max_num_frame 3 "
    "--per_device_train_batch_size 3 --max_steps 2 --save_steps 2 --logging_steps 1 --learning_rate 1e-2 "
    "--grad_checkpoint False --red_box on --crop_frames 1 --report_to none --disable_tqdm True"
)
ANSWERS = ("a red cup slides to the right", "the ball rolls over stripes", "a cup is gone")


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `write_media` writes, with the boxes of its videos as `object_bboxes.npy`; read only."""
    root = write_media(tmp_path_factory.mktemp("golden") / "data")
    said = run_script("generate_npy_bboxes.py", ["--root", str(root), "--workers", "1"])
    assert said == "4 written, 0 skipped (up to date), 0 failed\n"
    return root


@pytest.fixture(scope="session")
def meta(media: Path) -> Path:
    """Meta JSON of a caption for each of the public videos; read only."""
    lines = []
    for video_id, answer in zip(PUBLIC, ANSWERS, strict=True):
        name = {"cup": "cup", "pool": "pool ball"}[video_id.split("-")[0]]
        question = f"<video>\nDescribe this video in one sentence, and focus on {name} located in the coordinate list."
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        lines.append(json.dumps({"id": video_id, "video": f"{video_id}/{video_id}.mp4", "conversations": turns}))
    (media.parent / "train.jsonl").write_text("\n".join(lines) + "\n")
    for split, ids in (("public", PUBLIC), ("private", PRIVATE)):
        (media / f"sample_result_{split}.json").write_text(json.dumps(ids))
    entry = {"root": str(media), "annotation": str(media.parent / "train.jsonl")}
    (media.parent / "meta.json").write_text(json.dumps({"captions": entry}))
    return media.parent / "meta.json"


@pytest.fixture(scope="session")
def trained(meta: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps, with what the old checkpoint was trained with; read only."""
    folder = tmp_path_factory.mktemp("golden") / "run"
    places = ["--model_name_or_path", str(OLD / "base"), "--meta_path", str(meta), "--output_dir", str(folder)]
    run_script("internvl_chat/train/finetune_w_bboxes_ml.py", [*TRAINING.split(), *places])
    return folder
