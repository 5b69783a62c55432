"""Names of weights, and an old checkpoint that answers as it did: through the model, and as a submission."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from internvl_chat.data.prompts.encoder import SampleEncoder
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.records.reader import RecordReader
from internvl_chat.model.checkpoint import load_captioner
from tests.golden.frozen import OLD, check_frozen, described, digest, run_script

CHECKPOINT, BASE = OLD / "checkpoint-300", OLD / "base"
QUESTION = "<video>\nDescribe this video in one sentence, and focus on {} located in the coordinate list."


def test_names_of_what_training_saves(trained: Path) -> None:
    """Names, dtypes and shapes of a run's weights, its files, and its losses in thousandths."""
    checkpoint = trained / "checkpoint-2"
    lines = ["files of a run:", *sorted(path.name for path in trained.iterdir()), "\nfiles of a checkpoint:"]
    lines += sorted(path.name for path in checkpoint.iterdir())
    for path in sorted(checkpoint.glob("*.safetensors")):
        lines += [f"\n{path.name}:", *described(load_file(path))]
        assert described(load_file(path)) == described(load_file(CHECKPOINT / path.name))
    history = json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]
    lines += ["\nlosses:", *(f"{entry['loss']:.3f}" for entry in history if "loss" in entry)]
    lines += ["\nprompt_config.json:", (checkpoint / "prompt_config.json").read_text().strip()]
    check_frozen("trained.txt", "\n".join(lines) + "\n")


def test_names_in_the_model() -> None:
    models = {
        "base": load_captioner(BASE),
        "with box adapters and LoRA": load_captioner(CHECKPOINT, base_path=str(BASE)),
    }
    lines = [line for name, model in models.items() for line in (f"{name}:", *described(model.state_dict()))]
    check_frozen("state_dicts.txt", "\n".join(lines) + "\n")


@torch.no_grad()
def test_an_old_checkpoint_says_the_same(media: Path) -> None:
    model = load_captioner(CHECKPOINT, base_path=str(BASE), dtype=torch.float32)
    encoder = SampleEncoder(AutoTokenizer.from_pretrained(CHECKPOINT), PromptConfig.load(CHECKPOINT))
    lines = []
    for video_id, name in (("cup-1", "cup"), ("pool-3", "pool ball"), ("pool-4", "pool ball")):
        turns = [{"from": "human", "value": QUESTION.format(name)}]
        record = {"id": video_id, "video": f"{video_id}/{video_id}.mp4", "conversations": turns}
        sample = RecordReader(media).read(record, "a.jsonl:1")
        features = encoder(sample, encoder.choose_frames(sample, 3, "middle", np.random.default_rng(1)))
        ids = features["input_ids"][None]
        said = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            vision=features["vision"],
            do_sample=False,
            max_new_tokens=40,
        )
        lines.append(f"{video_id}: {said[0, ids.shape[1] :].tolist()}")
    check_frozen("greedy_ids.txt", "\n".join(lines) + "\n")


def test_a_submission_has_the_same_bytes(meta: Path, tmp_path: Path) -> None:
    flags = "--num_frames 3 --max_new_tokens 40 --num_workers 0 --num_candidates 1"
    places = ["--checkpoint_path", str(CHECKPOINT), "--model_name_or_path", str(BASE), "--meta_path", str(meta)]
    run_script("eval_const.py", [*flags.split(), *places, "--save_path", str(tmp_path)])
    archive = tmp_path / "result.zip"
    lines = [f"result.zip {digest(archive.read_bytes())}"]
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            lines += [f"\n{name} {digest(file.read(name))}", file.read(name).decode().strip()]
    check_frozen("submission.txt", "\n".join(lines) + "\n")
