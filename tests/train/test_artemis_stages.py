"""Artemis' three stages by their scripts: from a bare Llama and a CLIP tower, each on what the one before it left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from internvl_chat.__main__ import main as command_line
from internvl_chat.contracts import UserError
from internvl_chat.files import write_json, write_jsonl
from internvl_chat.model.export import begin_base
from internvl_chat.model.loading import load_config, open_native
from internvl_chat.train.finetune_w_bboxes_ml import parse_arguments, train
from tests.artemis import SIDE_PX, write_llama, write_tower
from tests.helpers import ROOT
from tests.test_recipes import flags_of, started
from tests.train.running import flags_from, train_in_turn

pytestmark = pytest.mark.process

SHELL = ROOT / "shell" / "artemis"
SMALL = (
    f"--force_image_size {SIDE_PX} --min_num_frame 4 --max_num_frame 4 --max_steps 1 --save_steps 1 "
    "--dataloader_num_workers 0 --report_to none --learning_rate 1e-2 --warmup_ratio 0"
).split()
BATCH = {"GPUS": "2", "BATCH_SIZE": "4", "PER_DEVICE_BATCH_SIZE": "1"}
# Rate, schedule, epochs, samples a GPU, accumulated, DeepSpeed's file, what of the model is trained.
PUBLISHED = {
    "pretrain": (1e-3, "cosine", 1, 32, 1, "zero_stage2_config", {"projector"}),
    "finetune": (2e-5, "cosine", 1, 16, 1, "zero_stage2_offload_config", {"projector", "language model"}),
    "finetune_ref": (4e-5, "constant", 3, 6, 20, "zero_stage2_offload_config", {"projector", "region encoder", "LoRA"}),
}


def asked(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@dataclass(frozen=True)
class Stages:
    """Where a run of all stages left its things."""

    folder: Path
    start: Path

    def trained(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / name / "trained_modules.safetensors")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    argv = [write_llama(folder / "llama"), folder / "start", "--vision_tower", write_tower(folder / "clip")]
    assert command_line(["convert", *map(str, argv)]) == 0
    return folder / "start"


@pytest.fixture(scope="module")
def metas(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pictures, several pictures, videos and text alone; and videos with a track, two captions each."""
    folder = tmp_path_factory.mktemp("records")
    rng = np.random.default_rng(3)
    for clip in range(2):
        (folder / f"clip{clip}").mkdir()
        for number in range(5):
            frame = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(frame).save(folder / f"clip{clip}" / f"{number}.png")
    pictures = [f"clip1/{number}.png" for number in range(2)]
    plain: list[dict[str, Any]] = [
        {"id": 1, "image": "clip0/0.png", "conversations": asked("<image>\nWhat?", "noise")},
        {"id": 2, "image": pictures, "conversations": asked("<image>\n<image>\nBoth?", "more noise")},
        {"id": 3, "video": "clip0", "conversations": asked("<video>\nWhat happens?", "nothing")},
        {"id": 4, "conversations": asked("And without a picture?", "words")},
    ]
    boxes = {str(number): [5 + number, 5, 20 + number, 25] for number in range(4)}
    track = {"name": "dog", "boxes": boxes, "unit": "pixels", "order": "xyxy"}
    tracked = [
        {"id": f"{c}-{w}", "video": f"clip{c}", "tracks": [track], "conversations": asked("<video>\nHow is <bbox>?", w)}
        for c in range(2)
        for w in ("it runs", "it rests")
    ]
    metas = []
    for name, records in (("plain", plain), ("tracked", [*tracked, plain[3], plain[0]])):
        write_jsonl(folder / f"{name}.jsonl", records)
        write_json(folder / f"{name}.json", {name: {"root": str(folder), "annotation": str(folder / f"{name}.jsonl")}})
        metas.append(folder / f"{name}.json")
    return metas[0], metas[1]


@pytest.fixture(scope="module")
def stages(start: Path, metas: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """All stages on two ranks in one start of torchrun, the flags being the scripts'; the last one goes on once.

    The first under ZeRO-2, the second with offload, the last under ZeRO-3, where ranks whose rows show unlike things
    must not wait for each other.
    """
    folder = tmp_path_factory.mktemp("stages")
    runs = []
    base = start
    for name, meta in zip(PUBLISHED, (metas[0], metas[0], metas[1]), strict=True):
        where = {"MODEL_PATH": str(base), "META_PATH": str(meta), "OUTPUT_DIR": str(folder / name)}
        base = folder / f"{name}_merged"
        zero = ("--deepspeed", str(ROOT / "zero_stage3_config.json")) if name == "finetune_ref" else ()
        flags = flags_from(SHELL / f"{name}.sh", folder, *SMALL, *zero, **BATCH, **where)
        runs.append((flags, str(folder / name), str(base)))
    last, trained, merged = runs.pop()
    again = "--overwrite_output_dir False --max_steps 2".split()
    runs += [(last, trained, ""), ([*last, *again], trained, merged)]
    train_in_turn(folder, runs)
    return Stages(folder, start)


def test_each_stage_trains_its_parts_and_begins_where_the_last_one_ended(stages: Stages) -> None:
    begun = {name: tensor.read() for name, tensor in open_native(stages.start).items()}
    assert not any(".region_encoder." in name for name in begun)
    projector = {name for name in begun if ".multi_modal_projector." in name}
    language = {name for name in begun if ".language_model." in name or name == "lm_head.weight"}
    before = begun
    for name, parts in (("pretrain", projector), ("finetune", projector | language), ("finetune_ref", projector)):
        trained = stages.trained(name)
        regions = {n for n in trained if ".region_encoder." in n}
        assert trained.keys() - regions == parts
        assert bool(regions) == (name == "finetune_ref")
        merged = {n: tensor.read() for n, tensor in open_native(stages.folder / f"{name}_merged").items()}
        for n in projector:
            assert not torch.equal(trained[n].float(), before[n].float()), n
            assert torch.equal(merged[n].float(), trained[n].float()), n
        still = "model.vision_tower.encoder.layers.0.mlp.fc1.weight"
        assert torch.equal(merged[still].float(), before[still].float())
        before = merged


def test_the_last_stage_has_loras_published_scale_and_went_on(stages: Stages) -> None:
    folder = stages.folder / "finetune_ref"
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["lora_dropout"]) == (16, 16, 0.05)
    assert json.loads((folder / "trainer_state.json").read_text())["global_step"] == 2
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        assert {name.split(".")[-3] for name in file.keys()} == {  # noqa: SIM118
            *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        }
    # Two captions of a clip share its pass: two clips, a text, a picture.
    record = json.loads((folder / "run.json").read_text())
    assert (record["samples"], record["passes"]) == (6, 4)


def test_what_all_stages_made_answers_about_a_track(stages: Stages, metas: tuple[Path, Path], tmp_path: Path) -> None:
    records = metas[1].with_name("tracked.jsonl")
    said = []
    for model in ("finetune_ref", "finetune_ref_merged"):
        argv = ["answer", "--model", stages.folder / model, "--records", records, "--out", tmp_path / f"{model}.jsonl"]
        assert command_line([str(word) for word in [*argv, "--num_workers", 0, "--max_new_tokens", 4]]) == 0
        said.append((tmp_path / f"{model}.jsonl").read_text())
    assert said[0].count("\n") == 6


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_script_has_the_published_values(name: str, start: Path, tmp_path: Path, capsys: Any) -> None:
    """And its dry run says what is trained and what that takes."""
    rate, schedule, epochs, per_gpu, accumulated, zero, trained = PUBLISHED[name]
    words = started(SHELL / f"{name}.sh", tmp_path, "--force_image_size", str(SIDE_PX), MODEL_PATH=str(start))
    flags = flags_of(words)
    assert "--nproc_per_node=8" in words and Path(flags["--deepspeed"]).stem == zero
    run = parse_arguments([word for pair in flags.items() for word in pair if pair[0] != "--deepspeed"])
    args = run.training
    assert (args.learning_rate, args.lr_scheduler_type, args.num_train_epochs) == (rate, schedule, epochs)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (per_gpu, accumulated)
    assert (args.warmup_steps, args.weight_decay, args.bf16) == (0.03, 0, True)
    assert (run.prompt.max_seq_length, run.prompt.max_num_frame, run.prompt.pad2square) == (
        3072,
        100,
        name != "pretrain",
    )
    assert (ROOT / "shell" / "data" / Path(flags["--meta_path"]).name).is_file()
    capsys.readouterr()
    flags["--meta_path"] = "nowhere.json"
    train(parse_arguments([word for pair in flags.items() for word in pair] + ["--dry_run", "8"]))
    said = capsys.readouterr().out
    parts = said.partition("trained:\n")[2].partition("  total")[0]
    assert {line.strip().rpartition("  ")[0].strip() for line in parts.splitlines()} == trained
    assert "plan, on 8 H100 of 79.2 GiB: fits" in said and "ZeRO-2" in said


def test_a_base_cannot_begin_as_anything_else(start: Path, tmp_path: Path) -> None:
    llama, tower = start.with_name("llama"), start.with_name("clip")
    for source, with_tower, message in (
        (tower, tower, "is a 'clip_vision_model' model: expected one of 'llama' to begin a base with a tower"),
        (llama, llama, "holds no CLIP vision tower"),
        (llama, tower, "is not empty"),
    ):
        target = start if message == "is not empty" else tmp_path / "new"
        with pytest.raises(UserError, match=message):
            begin_base(source, str(with_tower), target)
    assert load_config(start).region_tokens is False
