"""Situations of training from ../shared/cases: all end in the truth or one message."""

from __future__ import annotations

import json
import logging
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from internvl_chat.choices import PROMPT_FORMS
from internvl_chat.constants import BOX_START, REF_END
from internvl_chat.data.prompts.tokenizer import read_tokenizer
from internvl_chat.data.records.annotations import caption_records, read_captions
from internvl_chat.data.records.box_files import find_videos, write_boxes_beside
from internvl_chat.data.synthetic.shapes import write_dataset
from internvl_chat.files import read_json, write_json, write_jsonl
from internvl_chat.model.checkpoint import TRAINED_MODULES_NAME, load_captioner
from internvl_chat.model.export import merge_checkpoint
from internvl_chat.model.loading import append_mean_rows
from internvl_chat.train.arguments import ModelArguments
from internvl_chat.train.build import load_text_processing, say_normalisation
from internvl_chat.train.finetune_w_bboxes_ml import parse_arguments, train
from tests.helpers import ROOT, shared
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


# What each case of the program ends in, as the last line that it prints before its own `rc`.
EDGES = {
    "gpus": r"error: .*checkpoint-4: was written by 1 ranks, and this run has 2: .* --universal True",
    "data": r"error: .*: was trained on 40 records in 8 passes, this run has 20 records in 4 passes: give the same",
    "two_runs": r"^next: .* eval --model|another run is writing there: wait for its end, or give another folder",
}


@pytest.fixture(scope="module")
def edge_inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The quickstart's shapes, enough for 40 records, and their annotation."""
    root = tmp_path_factory.mktemp("edges") / "shapes"
    write_dataset(root, train_clips=12, public_clips=1, private_clips=1, seed=5)
    for video in find_videos(root):
        write_boxes_beside(video)
    records = list(caption_records(read_captions(root / "train.json"), PROMPT_FORMS["coordinates"]))
    assert len(records) >= 40
    write_jsonl(root / "train.jsonl", records)
    return root, root / "train.jsonl"


@pytest.mark.parametrize("case", EDGES)
def test_training_edges(case: str, edge_inputs: tuple[Path, Path], tmp_path: Path) -> None:
    program = shared("cases") / "training_edges.py"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, str(program), str(ROOT), *map(str, edge_inputs), str(tmp_path), case],
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    *_, last, codes = [line for line in done.stdout.splitlines() if line.strip()]
    assert re.search(EDGES[case], last), done.stdout[-4000:]
    if case == "two_runs":
        # Whichever comes second leaves the other alone.
        assert sorted(re.findall(r"rc\d (\d)", codes)) == ["0", "1"]
        assert done.stdout.count("another run is writing there") >= 1
        assert "trained to step 24 in" in done.stdout
        assert not (tmp_path / "same" / "checkpoint-12").exists() or (tmp_path / "same" / "checkpoint-24").exists()
    else:
        assert codes == "rc 1"
        record = read_json(tmp_path / case / "run.json")
        assert record["training"]["max_steps"] == 4, "the record of the run before is left as it was"


def test_saved_processor_says_the_means_that_were_used(caplog: pytest.LogCaptureFixture) -> None:
    processor = load_text_processing(ModelArguments(model_name_or_path=str(BASE_MODEL))).processor
    assert processor is not None
    with caplog.at_level(logging.WARNING):
        say_normalisation(processor, "imagenet", "the base")
    assert not caplog.records, "the base's own means are what it is trained with by default"
    say_normalisation(processor, "siglip", "the base")
    assert "the processor of the base says mean [0.485" in caplog.text and "--normalize_type siglip" in caplog.text
    for part in (processor.image_processor, processor.video_processor):
        assert list(part.image_mean) == list(part.image_std) == [0.5, 0.5, 0.5]
