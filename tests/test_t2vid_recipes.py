"""T2Vid's recipes: the published values, and a dry run that says what they train."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_chat.train.finetune_w_bboxes_ml import parse_arguments, train
from tests.helpers import ROOT
from tests.minicpmv import write_minicpmv
from tests.test_recipes import flags_of, started
from tests.tiny_idefics3 import TILE_PX, write_tiny

FOLDER = ROOT / "shell" / "t2vid"
LORA = "--use_llm_lora 64 --freeze_llm True --freeze_backbone True".split()
# Base, template, mix, weight decay, Adam's second beta, longest sample.
PUBLISHED = {
    "minicpm_mix_30k": ("openbmb/MiniCPM-Llama3-V-2_5", "minicpmv2_5", "t2vid_mix_30k", 0.05, 0.95, 8666),
    "minicpm_baseline_200k": ("openbmb/MiniCPM-Llama3-V-2_5", "minicpmv2_5", "t2vid_video_200k", 0.01, 0.999, 8666),
    "idefics3_mix_30k": ("HuggingFaceM4/Idefics3-8B-Llama3", "idefics3", "t2vid_mix_30k", 0.01, 0.999, 131072),
    "internvl_mix_30k": ("OpenGVLab/InternVL3-8B", "internvl2_5", "t2vid_mix_30k", 0.05, 0.95, 24576),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_values(name: str, tmp_path: Path) -> None:
    base, template, mix, decay, beta2, length = PUBLISHED[name]
    words = started(FOLDER / f"{name}.sh", tmp_path)
    flags = flags_of(words)
    assert "--nproc_per_node=8" in words and flags["--model_name_or_path"] == base
    zero = json.loads(Path(flags.pop("--deepspeed")).read_text())["zero_optimization"]
    assert (zero["stage"], zero["offload_param"]["device"], zero["offload_optimizer"]["device"]) == (3, "cpu", "cpu")
    assert (ROOT / flags["--meta_path"]).stem == mix and (ROOT / flags["--meta_path"]).is_file()
    run = parse_arguments([word for pair in flags.items() for word in pair])
    args = run.training
    assert (args.learning_rate, args.weight_decay, args.adam_beta2) == (5e-6, decay, beta2)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps, args.num_train_epochs) == (2, 4, 1)
    assert (args.warmup_steps, args.lr_scheduler_type, args.save_steps, args.save_only_model) == (
        0.03,
        "cosine",
        9999,
        True,
    )
    assert (run.prompt.conv_style, run.prompt.max_seq_length, run.prompt.max_num_frame) == (template, length, 24)
    model = run.model
    assert not (model.freeze_llm or model.freeze_mlp or model.freeze_backbone or model.use_llm_lora)
    assert model.num_adapter_layers == 0


def test_a_dry_run_says_what_is_trained_and_what_it_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": 1, "conversations": turns}))
    (tmp_path / "meta.json").write_text(
        json.dumps({"a": {"root": str(tmp_path), "annotation": str(tmp_path / "a.jsonl")}})
    )
    bases = {"minicpm": write_minicpmv(tmp_path / "minicpm"), "idefics3": write_tiny(tmp_path / "idefics3")}
    full = ["ViT", "projector", "language model"]
    for name, flags, trained in (
        ("minicpm", [], full),
        ("minicpm", LORA, ["projector", "LoRA"]),
        ("idefics3", ["--force_image_size", str(TILE_PX)], full),
    ):
        where = {"MODEL_PATH": str(bases[name]), "META_PATH": str(tmp_path / "meta.json")}
        words = started(FOLDER / f"{name}_mix_30k.sh", tmp_path, *flags, **where)
        train(parse_arguments([word for pair in flags_of(words).items() for word in pair] + ["--dry_run", "8"]))
        said = capsys.readouterr().out
        parts = said.partition("trained:\n")[2].partition("  total")[0]
        assert [line.strip().rpartition("  ")[0].strip() for line in parts.splitlines()] == trained
        assert "plan, on 8 H100 of 79.2 GiB: fits" in said and "ZeRO-3" in said
