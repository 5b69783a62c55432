"""A run described without running it, and the flags that say what is trained."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from internvl_chat.contracts import UserError
from internvl_chat.model.loading import load_config
from internvl_chat.train.build import trainable_part
from internvl_chat.train.dry_run import describe_run
from internvl_chat.train.finetune_w_bboxes_ml import parse_arguments
from tests.families import FAMILIES, write_family
from tests.model.original_reference import VIT_LAYERS
from tests.train.conftest import BASE_MODEL, REPOSITORY

pytestmark = pytest.mark.process


def described(folder: Path, tmp_path: Path, *flags: str) -> str:
    argv = ["--model_name_or_path", folder, "--meta_path", "none.json", "--output_dir", tmp_path / "out"]
    argv += ["--num_adapter_layers", "0", "--freeze_backbone", "True", "--dry_run", "6"]
    run, config = parse_arguments([*map(str, argv), *flags]), load_config(folder)
    shown = run.prompt_config(tokens_per_frame=16)
    return describe_run(run, shown, trainable_part(run.model, config))


def trained_in(text: str) -> dict[str, int]:
    lines = text.split("\ntrained:\n")[1].split("\nmemory")[0].splitlines()
    return {name.strip(): int(size.replace(",", "")) for name, size in (line.rsplit(maxsplit=1) for line in lines)}


@pytest.mark.parametrize("name", ["internvl2_1b", "internvl2_2b", "internvl2_4b", "internvl2_76b"])
def test_a_config_json_is_all_it_takes(name: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path / "base", name, with_weights=False)
    lora = described(folder, tmp_path, "--freeze_llm", "True", "--freeze_mlp", "True", "--use_llm_lora", "4")
    assert f"original layout, {FAMILIES[name].llm} language model" in lora
    assert "step: 6 ranks x 8 samples x 1 accumulated = 48 samples, ZeRO stage 0" in lora
    assert trained_in(lora).keys() == {"LoRA", "total"}

    both = described(
        folder,
        tmp_path,
        "--freeze_mlp",
        "True",
        "--use_llm_lora",
        "4",
        "--use_backbone_lora",
        "3",
        "--unfreeze_lm_head",
    )
    assert trained_in(both)["LoRA"] > trained_in(lora)["LoRA"]
    config = load_config(folder).text_config
    assert trained_in(both)["language model"] == config.vocab_size * config.hidden_size

    full = described(folder, tmp_path, "--gradient_accumulation_steps", "3")
    assert trained_in(full).keys() == {"projector", "language model", "total"}
    assert "= 144 samples" in full


LORA = ["--freeze_llm", "True", "--freeze_mlp", "True", "--use_llm_lora", "4"]


def test_the_plan_is_that_of_the_batch_the_ranks_and_the_stage(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "base", "internvl2_1b", with_weights=False)
    batch = ["--per_device_train_batch_size", "7", "--gradient_accumulation_steps", "3", "--max_steps", "5"]
    batch += ["--max_seq_length", "1000", "--grad_checkpoint", "1"]
    zero = str(REPOSITORY / "shell" / "deepspeed" / "zero_stage2_offload_config.json")
    text = described(folder, tmp_path, *LORA, *batch, "--deepspeed", zero)
    assert "plan, on 6 H100 of 79.2 GiB: fits, and less where the DeepSpeed file offloads" in text
    assert "up to 18 frames, 7 a pass, 1 LLM layers computed again, ZeRO-2" in text
    assert "5 steps of 3 x 7 x 6 samples" in text


def test_the_plan_counts_the_data_where_it_is_there(shapes_meta: Path, tmp_path: Path) -> None:
    folder = write_family(tmp_path / "base", "internvl2_1b", with_weights=False)
    text = described(folder, tmp_path, *LORA, "--meta_path", str(shapes_meta), "--per_device_train_batch_size", "1")
    assert "up to 32 frames" in text and "3 steps of 1 x 1 x 6 samples" in text


def test_a_run_that_trains_nothing_is_refused(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "base", "internvl2_1b", with_weights=False)
    with pytest.raises(UserError, match="nothing is trained"):
        described(folder, tmp_path, "--freeze_llm", "True", "--freeze_mlp", "True")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--unfreeze_vit_layers", "-8"], f"--unfreeze_vit_layers -8: expected -{VIT_LAYERS} to {VIT_LAYERS - 1}"),
        (["--unfreeze_vit_layers", "7"], "--unfreeze_vit_layers 7"),
    ],
)
def test_layers_that_are_not_there_are_refused(flags: list[str], message: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path / "base", "internvl2_1b", with_weights=False)
    with pytest.raises(UserError, match=message):
        described(folder, tmp_path, *flags)


def test_an_output_layer_that_is_the_embeddings_cannot_be_unfrozen(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "base", "internvl2_1b", with_weights=False)
    config = load_config(folder)
    config.tie_word_embeddings = True
    model_args, *_ = parse_arguments(
        ["--model_name_or_path", str(folder), "--meta_path", "m", "--output_dir", str(tmp_path), "--unfreeze_lm_head"]
    )
    with pytest.raises(UserError, match="its embeddings are used twice"):
        trainable_part(model_args, config)


def test_a_script_describes_itself_and_trains_nothing(tmp_path: Path) -> None:
    folder = REPOSITORY / "shell" / "internvl3.0" / "2nd_finetune"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MODEL_PATH": str(BASE_MODEL),
        "META_PATH": "not_there.json",
        "OUTPUT_DIR": str(tmp_path / "out"),
        "GPUS": "4",
    }
    command = ["sh", str(folder / "internvl3_14b_dynamic_res_2nd_finetune_lora.sh"), "--dry_run"]
    done = subprocess.run(
        [*command, "--force_image_size", "80"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Nothing of what libraries miss on this machine stands before it.
    assert done.stderr == "next: the same without --dry_run trains\n"
    first, *_ = done.stdout.splitlines()
    assert first.startswith("torchrun --nnodes=1 ") and "--nproc_per_node=4" in first and "--dry_run" not in first
    assert "step: 4 ranks x 2 samples x 2 accumulated = 16 samples, ZeRO stage 3" in done.stdout
    assert trained_in(done.stdout).keys() == {"LoRA", "total"}
    assert list(tmp_path.iterdir()) == []
