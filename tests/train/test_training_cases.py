"""Situations of training from ../shared/cases: all end in the truth or one message."""

from __future__ import annotations

import json
import logging
import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from internvl_chat.constants import BOX_START, REF_END
from internvl_chat.data.prompts.tokenizer import read_tokenizer
from internvl_chat.files import read_json, write_json, write_jsonl
from internvl_chat.model.checkpoint import TRAINED_MODULES_NAME, load_captioner
from internvl_chat.model.export import merge_checkpoint
from internvl_chat.model.loading import append_mean_rows
from internvl_chat.train.finetune_w_bboxes_ml import parse_arguments, train
from tests.helpers import shared
from tests.train.conftest import BASE_MODEL

pytestmark = pytest.mark.process

FLAGS = (
    "--force_image_size 80 --min_num_frame 2 --max_num_frame 3 --num_adapter_layers 1 --use_llm_lora 4 --max_steps 2 "
    "--save_steps 2 --learning_rate 0.02 --weight_decay 0.05 --lora_dropout 0 --grad_checkpoint False --report_to none "
    "--freeze_backbone True --disable_tqdm True --per_device_train_batch_size 2"
)
EMBEDDINGS, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"


def run(base: Path, meta: Path, out: Path, *flags: str) -> None:
    paths = ["--model_name_or_path", str(base), "--meta_path", str(meta), "--output_dir", str(out)]
    train(parse_arguments([*FLAGS.split(), *flags, *paths]))


def test_vocabulary_grows(
    shapes_meta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    program = shared("cases") / "vocabulary_grows.py"
    monkeypatch.setattr("sys.argv", [str(program), str(BASE_MODEL), str(base)])
    runpy.run_path(str(program), run_name="__main__")
    entry = read_json(shapes_meta)["shapes"]
    records = [json.loads(line) for line in Path(entry["annotation"]).read_text().splitlines()]
    for record in records:
        record["conversations"][1]["value"] = "<ref>it</ref><box>[[1, 2, 30, 40]]</box>"
    write_jsonl(tmp_path / "boxes.jsonl", records)
    meta = tmp_path / "meta.json"
    write_json(meta, {"boxes": {**entry, "annotation": str(tmp_path / "boxes.jsonl")}})
    with caplog.at_level(logging.WARNING):
        run(base, meta, out)
    assert "6 tokens are new to" in caplog.text and "such as <quad>" in caplog.text

    before = load_captioner(base, dtype=torch.float32).state_dict()
    after = load_file(out / TRAINED_MODULES_NAME)
    for name in (EMBEDDINGS, HEAD):
        known = len(before[name])
        assert after[name].shape[0] == known + 6
        assert torch.equal(after[name][:known], before[name]), "what the base knew stays as it was"
        moved = (after[name] != append_mean_rows(before[name].bfloat16(), 6))[known:].any(1)
        # <quad> and </quad> are in no answer; that they are not is learned in the output layer alone.
        assert moved.tolist() == [name == HEAD] * 2 + [True] * 4

    assert merge_checkpoint(out, tmp_path / "merged") > 0
    merged = load_captioner(tmp_path / "merged", dtype=torch.float32).state_dict()
    again = load_captioner(out, dtype=torch.float32).state_dict()
    for name in (EMBEDDINGS, HEAD):
        assert torch.equal(merged[name], after[name]) and torch.equal(again[f"base_model.model.{name}"], after[name])
    ids = read_tokenizer(tmp_path / "merged").convert_tokens_to_ids([BOX_START, REF_END])
    assert min(ids) >= known
