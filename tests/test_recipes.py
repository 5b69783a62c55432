"""The recipes: one row of values a script, one launcher, and nothing in the scripts but the row's name."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from internvl_chat.commands import check, inspect, plan
from internvl_chat.commands.options import count, positive_int
from internvl_chat.data.families.internvl_templates import CONVERSATION_TEMPLATES
from internvl_chat.train.arguments import RunArguments
from internvl_chat.train.finetune_w_bboxes_ml import parse_arguments
from tests.families import FAMILIES
from tests.helpers import ROOT

pytestmark = pytest.mark.process

COUNTS = (count, positive_int, plan.positive)
SHELL = ROOT / "shell"
ROWS = [line.split() for line in (SHELL / "recipes.txt").read_text().splitlines() if not line.startswith("#")]
SCRIPTS = sorted(path for path in SHELL.glob("internvl*/2nd_finetune/*.sh") if "roiattention" not in path.name)
# The names in the guide's repository.
GUIDE = (
    "internvl2_1b_qwen2_0_5b internvl2_2b_internlm2_1_8b internvl2_4b_phi3_3_8b internvl2_8b_internlm2_7b "
    "internvl2_26b_internlm2_20b internvl2_40b_hermes2_yi_34b internvl2_76b_hermes2_llama3_70b"
).split()


def row_of(script: Path) -> list[str]:
    """The row that a script names."""
    found = re.search(r"finetune\.sh\" (\w+) (\w+) ", script.read_text())
    assert found, script
    return next(row for row in ROWS if row[:2] == list(found.groups()))


def started(script: Path, tmp_path: Path, *flags: str, **environment: str) -> list[str]:
    """Run a script as a user would, with a torchrun that only says what it was given."""
    stub = tmp_path / "bin" / "torchrun"
    stub.parent.mkdir(exist_ok=True)
    stub.write_text('#!/bin/sh\nfor word in "$@"; do echo "=$word"; done\n')
    # What is there to start with is checked by a test of its own.
    python = stub.with_name("python")
    python.write_text("#!/bin/sh\n")
    for program in (stub, python):
        program.chmod(0o755)
    env = {key: value for key, value in os.environ.items() if key not in ("GPUS", "BATCH_SIZE", "MODEL_PATH")}
    env |= {"PATH": f"{stub.parent}{os.pathsep}{os.environ['PATH']}", "OUTPUT_DIR": str(tmp_path / "out")} | environment
    done = subprocess.run(
        ["sh", str(script), *flags], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [line[1:] for line in done.stdout.splitlines() if line.startswith("=")]


def flags_of(words: list[str]) -> dict[str, str]:
    """The last value of every flag of the training script."""
    start = next(i for i, word in enumerate(words) if word.endswith("finetune_w_bboxes_ml.py")) + 1
    return dict(zip(words[start::2], words[start + 1 :: 2], strict=True))


def test_every_row_has_its_script_and_every_script_its_row() -> None:
    assert sorted(row[:2] for row in ROWS) == sorted(row_of(script)[:2] for script in SCRIPTS)
    assert len({tuple(row[:2]) for row in ROWS}) == len(ROWS) == len(SCRIPTS) == 40
    names = {path.name for path in (SHELL / "internvl2.0" / "2nd_finetune").iterdir()}
    assert names == {f"{name}_dynamic_res_2nd_finetune_{mode}.sh" for name in GUIDE for mode in ("full", "lora")}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_a_name_and_no_values(script: Path) -> None:
    lines = script.read_text().splitlines()
    model, mode, base = row_of(script)[:3]
    assert len(lines) <= 6
    assert script.stem.startswith(f"{model}_") and script.stem.endswith(f"_{mode}")
    assert f"# {base}, " in lines[1]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_starts_what_its_row_says(script: Path, tmp_path: Path) -> None:
    _, mode, base, template, nodes, gpus, batch, per_device, rate, decay, drop, length, tiles, zero = row_of(script)
    words = started(script, tmp_path)
    flags = flags_of(words)
    assert {f"--nnodes={nodes}", f"--nproc_per_node={gpus}"} <= set(words)
    assert flags["--model_name_or_path"] == f"OpenGVLab/{base}"
    assert Path(flags.pop("--deepspeed")) == ROOT / zero
    run = parse_arguments([word for pair in flags.items() for word in pair])
    model_args, args = run.model, run.training
    assert args.gradient_accumulation_steps * args.per_device_train_batch_size * int(gpus) * int(nodes) == int(batch)
    assert args.per_device_train_batch_size == int(per_device)
    assert (args.learning_rate, args.weight_decay, args.num_train_epochs) == (float(rate), float(decay), 1)
    assert (run.prompt.max_seq_length, run.prompt.max_dynamic_patch) == (int(length), int(tiles))
    assert run.prompt.conv_style == template in CONVERSATION_TEMPLATES
    frozen = (model_args.freeze_llm, model_args.freeze_mlp, model_args.freeze_backbone)
    assert (frozen, model_args.use_llm_lora) == {
        "full": ((False, False, True), 0),
        "lora": ((True, True, True), 16),
    }[mode]
    assert (model_args.num_adapter_layers, model_args.drop_path_rate) == (0, float(drop))


def test_templates_are_those_of_the_families() -> None:
    assert {row[0]: row[3] for row in ROWS if row[0] in FAMILIES} == {
        name: family.template for name, family in FAMILIES.items()
    }


def test_environment_and_flags_win_over_the_row(tmp_path: Path) -> None:
    script = SHELL / "internvl2.0/2nd_finetune/internvl2_2b_internlm2_1_8b_dynamic_res_2nd_finetune_full.sh"
    settings = {
        "GPUS": "8",
        "PER_DEVICE_BATCH_SIZE": "1",
        "MODEL_PATH": "my/base",
        "META_PATH": "m.json",
        "NNODES": "2",
    }
    words = started(script, tmp_path, "--learning_rate", "3e-6", "--freeze_backbone", "False", **settings)
    flags = flags_of(words)
    assert {"--nnodes=2", "--nproc_per_node=8", "--node_rank=0"} <= set(words)
    assert (flags["--model_name_or_path"], flags["--meta_path"]) == ("my/base", "m.json")
    assert (flags["--per_device_train_batch_size"], flags["--gradient_accumulation_steps"]) == ("1", "8")
    assert (flags["--learning_rate"], flags["--freeze_backbone"]) == ("3e-6", "False")


def test_the_box_captioning_scripts_share_the_launcher(tmp_path: Path) -> None:
    folder = SHELL / "internvl3.0" / "2nd_finetune"
    flags = flags_of(started(folder / "roiattention.sh", tmp_path))
    assert (flags["--num_adapter_layers"], flags["--use_llm_lora"], flags["--learning_rate"]) == ("1", "128", "2e-5")
    assert flags["--model_name_or_path"] == "OpenGVLab/InternVL3-8B"


def test_an_unknown_recipe_is_named() -> None:
    done = subprocess.run(["bash", SHELL / "finetune.sh", "internvl2_3b", "full"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no recipe 'internvl2_3b full'")


@pytest.mark.parametrize("setting", ["GPUS=0", "GPUS=all", "PER_DEVICE_BATCH_SIZE=0", "BATCH_SIZE=1.5", "NNODES=-1"])
def test_a_number_that_is_none_is_named_before_anything_starts(setting: str, tmp_path: Path) -> None:
    name, value = setting.split("=")
    script = SHELL / "internvl3.0/2nd_finetune/roiattention_ml.sh"
    done = subprocess.run(
        ["sh", script], env={**os.environ, name: value}, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr == f"error: {name} is '{value}': expected a whole number from 1\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path", [ROOT / "zero_stage3_config.json", *SHELL.glob("deepspeed/*.json")], ids=lambda p: p.stem
)
def test_deepspeed_files_are_what_their_names_say(path: Path) -> None:
    settings = json.loads(path.read_text())
    zero = settings["zero_optimization"]
    assert path.name.startswith(f"zero_stage{zero['stage']}_")
    assert ("offload_optimizer" in zero) == ("offload" in path.name)
    # The trainer's own optimizer steps on the CPU: DeepSpeed's would need a compiler.
    assert settings.get("zero_force_ds_cpu_optimizer", True) == ("offload" not in path.name)
    assert settings["train_micro_batch_size_per_gpu"] == "auto"


def test_the_recipe_overlaps_communication_and_adds_gradients_up_in_float32() -> None:
    settings = json.loads((ROOT / "zero_stage3_config.json").read_text())
    assert settings["zero_optimization"]["overlap_comm"] is True
    assert settings["data_types"] == {"grad_accum_dtype": "fp32"}


def test_the_launcher_repeats_no_default_of_python() -> None:
    """What it gives is the recipes' choice: a default stands in the dataclass that owns it, and nowhere else."""
    block = re.search(r"^SETTINGS=\((.+?)^\)", (SHELL / "launch.sh").read_text(), re.DOTALL | re.MULTILINE)
    assert block
    given = dict(re.findall(r'^  --(\w+) "?([\w.]+)"?$', block[1], re.MULTILINE))
    assert len(given) > 8
    needed = "--model_name_or_path b --meta_path m --output_dir o".split()
    usual, chosen = parse_arguments(needed), parse_arguments([*needed, *(f"--{k}={v}" for k, v in given.items())])

    def value(run: RunArguments, flag: str) -> object:
        return next(getattr(part, flag) for part in (*run[:4], *run.controls) if hasattr(part, flag))

    assert [flag for flag in given if value(usual, flag) == value(chosen, flag)] == []


def test_a_script_finds_its_files_from_any_folder(tmp_path: Path) -> None:
    script = SHELL / "internvl3.0" / "2nd_finetune" / "roiattention_ml_14b.sh"
    flags = flags_of(started(script, tmp_path, MODEL_PATH="base"))
    assert Path(flags["--deepspeed"]) == ROOT / "zero_stage3_config.json"
    assert Path(flags["--meta_path"]).resolve() == SHELL / "data" / "intentvc_caption.json"
    (tmp_path / "own.json").touch()
    assert flags_of(started(script, tmp_path, META_PATH="own.json"))["--meta_path"] == "own.json"


@pytest.mark.parametrize("command", [plan, check, inspect], ids=lambda command: command.__name__.rpartition(".")[2])
def test_what_a_command_takes_for_granted_is_intentvcnets_recipe(command: ModuleType, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assumed = {action.dest: str(action.default) for action in parser._actions if action.type in (float, int, *COUNTS)}
    recipe = flags_of(started(SHELL / "internvl3.0" / "2nd_finetune" / "roiattention_ml.sh", tmp_path, MODEL_PATH="b"))
    chosen = {flag.removeprefix("--"): value for flag, value in recipe.items()}
    both = assumed.keys() & chosen.keys() - {"per_device_train_batch_size"}
    assert len(both) > 1
    assert {name: float(assumed[name]) for name in both} == {name: float(chosen[name]) for name in both}
