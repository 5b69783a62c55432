"""CogVLM2-Video through the training script: LoRA and the projector, then merged, with the same captions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from internvl_chat.__main__ import main
from internvl_chat.contracts import UserError
from internvl_chat.families import FAMILIES, check_supported
from tests.cogvlm2 import SIDE_PX, write_original
from tests.data.clips import write_clip
from tests.helpers import run_python


def test_a_trained_checkpoint_captions_as_its_merged_model_does(tmp_path: Path) -> None:
    write_original(tmp_path / "base")
    turns = [{"from": "human", "value": "<video>\nPlease describe this video in detail."}, {"from": "gpt"}]
    records = []
    for number in range(3):
        write_clip(tmp_path / f"{number}.mp4", 30 + 20 * number)
        for answer in ("a square", f"square {number}"):
            said = [turns[0], {**turns[1], "value": answer}]
            records.append({"id": f"{number}-{answer}", "video": f"{number}.mp4", "conversations": said})
    records.append(
        {"id": "text", "conversations": [{"from": "human", "value": "Hm?"}, {"from": "gpt", "value": "Yes"}]}
    )
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    meta = {"clips": {"root": str(tmp_path), "annotation": str(tmp_path / "train.jsonl")}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))

    run = tmp_path / "run"
    flags = (
        "--num_adapter_layers 0 --use_llm_lora 4 --freeze_backbone True --conv_style cogvlm2-chat --frame_choice chat"
    )
    flags += " --normalize_type clip --max_num_frame 24 --per_device_train_batch_size 2 --learning_rate 0.01"
    flags += f" --force_image_size {SIDE_PX} --report_to none --dataloader_num_workers 0 --save_strategy no"
    paths = ["--model_name_or_path", tmp_path / "base", "--meta_path", tmp_path / "meta.json", "--output_dir", run]
    done = run_python("internvl_chat/train/finetune_w_bboxes_ml.py", *paths, *flags.split())
    assert done.returncode == 0, done.stderr
    # Two answers to a video share its pass: three videos and a text.
    assert "7 samples in 4 passes" in done.stderr
    trained = load_file(run / "trained_modules.safetensors")
    assert {name.split(".")[1] for name in trained} == {"multi_modal_projector"}
    assert json.loads((run / "prompt_config.json").read_text())["frame_choice"] == "chat"

    assert main(["merge", str(run), str(tmp_path / "merged")]) == 0
    captions = []
    for model in (run, tmp_path / "merged", tmp_path / "base"):
        out = tmp_path / "captions" / model.name
        argv = ["caption-videos", tmp_path / "1.mp4", tmp_path / "2.mp4", "--model", model, "--out", out]
        assert main([str(word) for word in (*argv, "--num_workers", 0, "--max_new_tokens", 8)]) == 0
        captions.append([json.loads(line)["caption"] for line in (out / "captions.jsonl").read_text().splitlines()])
    assert captions[0] == captions[1]
    assert captions[0] != captions[2]
    assert all(torch.isfinite(tensor).all() for tensor in trained.values())


def test_what_the_family_does_not_compute_is_told() -> None:
    (family,) = [family for family in FAMILIES if family.name == "cogvlm2_video"]
    flags = {**dict(family.parts.SUPPORTED_FLAGS), "use_llm_lora": 8}
    check_supported(flags, family)
    for flag, value in (("num_adapter_layers", 5), ("crop_frames", 2), ("dynamic_image_size", True)):
        with pytest.raises(UserError, match=f"--{flag} {value}: expected (0|False) for this model"):
            check_supported({**flags, flag: value}, family)
