"""CogVLM2-Video by its recipe under ZeRO-3: LoRA and the projector, resumed, merged, with the same captions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from internvl_chat.__main__ import main
from internvl_chat.contracts import UserError
from internvl_chat.families import FAMILIES, check_supported
from internvl_chat.files import write_json, write_jsonl
from internvl_chat.train.finetune_w_bboxes_ml import parse_arguments
from tests.cogvlm2 import SIDE_PX, write_original
from tests.data.clips import write_clip
from tests.test_recipes import flags_of, started
from tests.train.conftest import REPOSITORY
from tests.train.running import flags_from, train_in_turn

pytestmark = pytest.mark.process

RECIPES = REPOSITORY / "shell" / "cogvlm2"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cogvlm2") / "base"
    write_original(folder)
    return folder


@pytest.fixture(scope="module")
def meta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos with two answers each, a picture, and a text, as CogVLM2's own folders and our records have them."""
    folder = tmp_path_factory.mktemp("cogvlm2-data")
    turns = [{"from": "human", "value": "<video>\nPlease describe this video in detail."}, {"from": "gpt"}]
    records = []
    for number in range(3):
        write_clip(folder / f"{number}.mp4", 30 + 20 * number)
        for answer in ("a square", f"square {number}"):
            said = [turns[0], {**turns[1], "value": answer}]
            records.append({"id": f"{number}-{answer}", "video": f"{number}.mp4", "conversations": said})
    records.append(
        {"id": "text", "conversations": [{"from": "human", "value": "Hm?"}, {"from": "gpt", "value": "Yes"}]}
    )
    write_jsonl(folder / "train.jsonl", records)
    (folder / "demo" / "images").mkdir(parents=True)
    (folder / "demo" / "labels").mkdir()
    Image.new("RGB", (30, 20), "red").save(folder / "demo" / "images" / "a.png")
    said = [{"role": "user", "content": "Which colour?"}, {"role": "assistant", "content": "Red"}]
    write_json(folder / "demo" / "labels" / "a.json", {"conversations": said})
    argv = ["convert-data", "--from", "cogvlm2", str(folder / "demo"), "--out", str(folder / "demo.jsonl")]
    assert main(argv) == 0
    entries = {"clips": folder, "demo": folder / "demo"}
    annotations = {"clips": folder / "train.jsonl", "demo": folder / "demo.jsonl"}
    write_json(
        folder / "meta.json",
        {name: {"root": str(root), "annotation": str(annotations[name])} for name, root in entries.items()},
    )
    return folder / "meta.json"


@pytest.fixture(scope="module")
def trained(base: Path, meta: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The LoRA recipe under ZeRO-3 on two CPU ranks: two steps, and a run that goes on with the third."""
    folder = tmp_path_factory.mktemp("cogvlm2-run") / "run"
    flags = f"--force_image_size {SIDE_PX} --dataloader_num_workers 0 --save_steps 2 --learning_rate 0.02 --deepspeed "
    flags += str(REPOSITORY / "zero_stage3_config.json")
    where = {"MODEL_PATH": str(base), "META_PATH": str(meta), "OUTPUT_DIR": str(folder)}
    where |= {"GPUS": "2", "BATCH_SIZE": "4", "PER_DEVICE_BATCH_SIZE": "1"}
    runs = []
    for steps, anew in ((2, "True"), (3, "False")):
        words = [*flags.split(), "--max_steps", str(steps), "--overwrite_output_dir", anew]
        runs.append((flags_from(RECIPES / "finetune_lora.sh", folder.parent, *words, **where), str(folder), ""))
    first, _, second = train_in_turn(folder.parent, runs).partition("resuming from")
    # Two answers to a video share its pass: three videos, a text and a picture.
    assert "8 samples in 5 passes" in first and "checkpoint-2" in second
    return folder


def test_what_was_trained_is_what_is_saved(trained: Path) -> None:
    history = json.loads((trained / "trainer_state.json").read_text())["log_history"]
    assert [line["step"] for line in history if "loss" in line] == [1, 2, 3]
    modules = load_file(trained / "trained_modules.safetensors")
    assert {name.split(".")[1] for name in modules} == {"multi_modal_projector"}
    assert "model.multi_modal_projector.downsample.weight" in modules
    lora = load_file(trained / "adapter_model.safetensors")
    wrapped = {name.split(".layers.0.")[1].split(".")[1] for name in lora if ".layers.0." in name}
    assert wrapped == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all(torch.isfinite(tensor).all() for tensor in (modules | lora).values())
    assert json.loads((trained / "prompt_config.json").read_text())["frame_choice"] == "chat"


def test_it_captions_as_its_merged_model_does_and_otherwise_than_its_base(
    trained: Path, base: Path, meta: Path, tmp_path: Path
) -> None:
    assert main(["merge", str(trained), str(tmp_path / "merged")]) == 0
    captions = []
    for model in (trained, tmp_path / "merged", base):
        out = tmp_path / "captions" / model.name
        argv = ["caption-videos", meta.parent / "1.mp4", meta.parent / "2.mp4", "--model", model, "--out", out]
        assert main([str(word) for word in (*argv, "--num_workers", 0, "--max_new_tokens", 8)]) == 0
        captions.append([json.loads(line)["caption"] for line in (out / "captions.jsonl").read_text().splitlines()])
    assert captions[0] == captions[1]
    assert captions[0] != captions[2]


@pytest.mark.parametrize(
    ("mode", "frozen", "rank", "zero"), [("lora", True, 8, 2), ("full", False, 0, 3)], ids=("lora", "full")
)
def test_a_recipe_starts_what_it_says(mode: str, frozen: bool, rank: int, zero: int, tmp_path: Path) -> None:
    flags = flags_of(started(RECIPES / f"finetune_{mode}.sh", tmp_path))
    assert flags["--model_name_or_path"] == "THUDM/cogvlm2-llama3-caption"
    settings = json.loads(Path(flags.pop("--deepspeed")).read_text())
    assert settings["zero_optimization"]["stage"] == zero
    run = parse_arguments([word for pair in flags.items() for word in pair])
    model = run.model
    assert (model.freeze_llm, model.freeze_mlp, model.freeze_backbone) == (frozen, False, True)
    assert (model.use_llm_lora, model.num_adapter_layers) == (rank, 0)
    prompt = run.prompt
    assert (prompt.conv_style, prompt.frame_choice, prompt.max_num_frame) == ("cogvlm2-chat", "chat", 24)
    assert (prompt.normalize_type, prompt.force_image_size) == ("clip", 224)


def test_what_the_family_does_not_compute_is_told() -> None:
    (family,) = [family for family in FAMILIES if family.name == "cogvlm2_video"]
    flags = {**dict(family.parts.SUPPORTED_FLAGS), "use_llm_lora": 8}
    check_supported(flags, family)
    for flag, value in (("num_adapter_layers", 5), ("crop_frames", 2), ("dynamic_image_size", True)):
        with pytest.raises(UserError, match=f"--{flag} {value}: expected (0|False) for this model"):
            check_supported({**flags, flag: value}, family)
