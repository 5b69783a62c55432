"""A stage-3 checkpoint as Artemis' training leaves it, through the commands: merged, exported, verified, asked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from internvl_chat.__main__ import main
from internvl_chat.contracts import UserError
from internvl_chat.files import write_jsonl
from internvl_chat.inference.answers import questions_of, records_to_answer
from internvl_chat.inference.chat import Chat
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.handle import open_model
from internvl_chat.inference.predict import BatchLimits
from internvl_chat.inference.session import PredictionSession
from internvl_chat.model.checkpoint import load_base, load_captioner
from internvl_chat.model.conversion.weight_files import open_safetensors
from internvl_chat.model.families.artemis.model import ArtemisForConditionalGeneration
from internvl_chat.model.families.artemis.original import native_config, weight_map
from internvl_chat.model.families.artemis.recorded import named_weight
from tests.data.families.test_artemis import tokenizer_of
from tests.helpers import ROOT, run_python
from tests.model.families.test_artemis_original import LLAMA, LORA_PATH, RANK, TOWER, meta

ABOUT_THE_OBJECT = "<video>\nWhat is the <bbox> doing in this video?"


@pytest.fixture(scope="module")
def stage_3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of CLIP, stage 2 and stage 3, with a tokenizer of one token a byte."""
    root = tmp_path_factory.mktemp("published")
    tower, stage_2, stage_3 = root / "clip", root / "stage_2", root / "artemis-lora"
    made = tokenizer_of()
    fields = LLAMA | {"mm_image_tower": str(tower), "vocab_size": len(made) - 3, "max_position_embeddings": 2048}
    for folder, config in ((tower, TOWER), (stage_2, fields), (stage_3, fields)):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
    made.save_pretrained(stage_2)
    made.save_pretrained(stage_3)
    with torch.device("meta"):
        shapes = ArtemisForConditionalGeneration(native_config(fields, root)).state_dict()
    original = weight_map().to_original({name: meta(list(tensor.shape)) for name, tensor in shapes.items()})
    drawn = {name: named_weight(name, list(tensor.shape)) for name, tensor in original.items()}
    tower_prefix = "model.image_tower.vision_tower."
    trained = {name: tensor for name, tensor in drawn.items() if ".spi_model." in name or ".mm_projector." in name}
    seen = {n.removeprefix(tower_prefix): t for n, t in drawn.items() if n.startswith(tower_prefix)}
    save_file(seen, tower / "model.safetensors")
    rest = {n: t for n, t in drawn.items() if n not in trained and not n.startswith(tower_prefix)}
    save_file(rest, stage_2 / "model.safetensors")
    torch.save({f"base_model.model.{n}": t for n, t in trained.items()}, stage_3 / "non_lora_trainables.bin")
    lora = {"lora_A": named_weight("down", [RANK, 12]), "lora_B": named_weight("up", [12, RANK])}
    torch.save({f"base_model.model.{LORA_PATH}.{n}.weight": t for n, t in lora.items()}, stage_3 / "adapter_model.bin")
    settings = {"r": RANK, "lora_alpha": 2 * RANK, "base_model_name_or_path": str(stage_2)}
    (stage_3 / "adapter_config.json").write_text(json.dumps(settings))
    return stage_3


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    rng = np.random.default_rng(3)
    (folder / "clip").mkdir()
    for number in range(5):
        frame = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(frame).save(folder / "clip" / f"{number:03}.png")

    def track(left_px: int) -> dict[str, Any]:
        boxes = {str(number): [left_px + number, 5, left_px + number + 12, 25] for number in range(4)}
        return {"name": "dog", "boxes": boxes, "unit": "pixels", "order": "xyxy"}

    def asked(text: str) -> list[dict[str, str]]:
        return [{"from": "human", "value": text}, {"from": "gpt", "value": "x"}]

    write_jsonl(
        folder / "val.jsonl",
        [
            {"id": 1, "video": "clip", "conversations": asked("<video>\nWhat happens?")},
            {"id": 2, "image": "clip/002.png", "conversations": asked("<image>\nWhat is it?")},
            {"id": 3, "conversations": asked("Text alone?")},
            {"id": 4, "video": "clip", "tracks": [track(0)], "conversations": asked(ABOUT_THE_OBJECT)},
            {"id": 5, "video": "clip", "tracks": [track(20)], "conversations": asked(ABOUT_THE_OBJECT)},
        ],
    )
    return folder / "val.jsonl"


def answers(model: Path, records: Path, out: Path) -> list[str]:
    argv = ["answer", "--model", model, "--records", records, "--out", out, "--num_frames", 4]
    assert main([str(word) for word in [*argv, "--num_workers", 0, "--max_new_tokens", 6]]) == 0
    return [json.loads(line)["answer"] for line in out.read_text().splitlines()]


def test_merged_and_exported_it_answers_as_it_lies(
    stage_3: Path, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged, exported = tmp_path / "merged", tmp_path / "exported"
    assert main(["merge", str(stage_3), str(merged)]) == 0
    assert main(["convert", str(merged), str(exported), "--to", "original"]) == 0
    said = [answers(folder, records, tmp_path / f"{folder.name}.jsonl") for folder in (stage_3, merged, exported)]
    assert said[0] == said[1] == said[2]
    assert len(set(said[0])) >= 4 and all(said[0])
    chat = Chat.open(merged, max_new_tokens=6)
    picture = records.with_name("clip") / "002.png"
    assert chat.ask("What is it?", images=[picture]).text == said[0][1]


def test_records_that_differ_in_their_track_alone_are_read_apart(stage_3: Path, records: Path) -> None:
    """The same question about the same frames; the slots hold the key's token and those of the four frames."""
    encoder = open_model(stage_3).encoder
    model = load_captioner(stage_3, dtype=torch.float32)
    logits = []
    for sample in records_to_answer(records, records.parent)[3:]:
        features = encoder(replace(sample, turns=sample.turns[:1]), np.arange(4))
        ids = features["input_ids"][None]
        assert int((ids == model.config.region_token_id).sum()) == 5
        assert int((ids == model.config.video_token_id).sum()) == model.config.video_seq_length
        with torch.no_grad():
            logits.append(model(input_ids=ids, vision=features["vision"]).logits[0, -1])
    assert (logits[0] - logits[1]).abs().max() > 0.01


def test_sampled_candidates_of_a_killed_run_are_those_of_an_undisturbed_one(
    stage_3: Path, records: Path, tmp_path: Path
) -> None:
    opened = open_model(stage_3)
    asks = [ask for sample in records_to_answer(records, records.parent) for ask in questions_of(sample)]
    decoding = Decoding(temperature=0.7, num_candidates=3, max_new_tokens=5)

    def answered(folder: Path) -> dict[str, list[str]]:
        session = PredictionSession.alone(opened, 4)
        predictions = session.predict(asks, decoding, BatchLimits(num_workers=0), folder, keep_tags=True)
        assert not predictions.failures
        return predictions.candidates

    calm = answered(tmp_path / "calm")
    assert [len(texts) for texts in calm.values()] == [3] * 5
    assert any(len(set(texts)) > 1 for texts in calm.values())
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path / "calm", killed)
    (progress,) = killed.glob("rank-*.jsonl")
    lines = progress.read_bytes().splitlines(keepends=True)
    # Two answers and a half: what was cut off is written anew, the others are not.
    progress.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    assert answered(killed) == calm
    assert progress.read_bytes().startswith(b"".join(lines[:2]))


def test_verify_holds_and_inspect_knows_the_parts(stage_3: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--checkpoint_path", str(stage_3), "--max_new_tokens", "4"]) == 0
    assert capsys.readouterr().out.endswith("holds\n")
    assert main(["inspect", str(stage_3), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["template"] == "vicuna_v1"


@pytest.mark.process
def test_it_is_trained_as_in_stage_3_and_answers_from_the_checkpoint(
    stage_3: Path, records: Path, tmp_path: Path
) -> None:
    """LoRA, projector and region encoder, on a merged model, with records whose questions name their object."""
    merged, trained, meta = tmp_path / "merged", tmp_path / "trained", tmp_path / "meta.json"
    assert main(["merge", str(stage_3), str(merged)]) == 0
    tracked = records.with_name("train.jsonl")
    tracked.write_text("".join(line + "\n" for line in records.read_text().splitlines() if "tracks" in line))
    meta.write_text(json.dumps({"clips": {"root": str(records.parent), "annotation": str(tracked)}}))
    flags = (
        "--conv_style vicuna_v1 --normalize_type clip --force_image_size 28 --num_adapter_layers 0 --region_tokens 4 "
        "--freeze_backbone True --use_llm_lora 3 --min_num_frame 4 --max_num_frame 4 --max_steps 2 --save_steps 2 "
        "--per_device_train_batch_size 2 --learning_rate 1e-2 --dataloader_num_workers 0"
    ).split()
    script = ROOT / "internvl_chat" / "train" / "finetune_w_bboxes_ml.py"
    result = run_python(script, "--model_name_or_path", merged, "--meta_path", meta, "--output_dir", trained, *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    before = load_captioner(merged, dtype=torch.float32).state_dict()
    kept = open_safetensors(trained / "trained_modules.safetensors")
    assert {name.split(".")[1] for name in kept} == {"multi_modal_projector", "region_encoder"}
    assert all(not torch.equal(tensor.read(), before[name]) for name, tensor in kept.items())
    assert len(answers(trained, records, tmp_path / "trained.jsonl")) == 5


def test_box_adapters_are_refused(stage_3: Path) -> None:
    with pytest.raises(UserError, match="has no place for box adapters"):
        load_base(str(stage_3), num_adapter_layers=2, dtype=torch.float32)
