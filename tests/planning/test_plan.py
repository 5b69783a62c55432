"""What a plan chooses, that its bytes are those of the weights, and what it says where nothing fits."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from torch import nn

from internvl_chat.__main__ import main
from internvl_chat.commands.plan import add_arguments
from internvl_chat.contracts import UserError
from internvl_chat.model.loading import load_config
from internvl_chat.model.memory.recomputation import Recomputation
from internvl_chat.model.trainable import TrainablePart
from internvl_chat.planning import plan as planning
from internvl_chat.planning.cards import GPUS, kind_of
from internvl_chat.planning.plan import GIB, Choices, Machine, RunPlan, Workload, plan_run
from tests.helpers import ROOT
from tests.model.test_fitting import PUBLISHED

LORA = TrainablePart(128, freeze_llm=False, freeze_mlp=False, freeze_backbone=True)
WORKLOAD = Workload(980, 5, 20, True, 32, 48, 2, 16)
EVERYTHING = Recomputation.of_layers(28)
MACHINE = Machine(4, 80 * GIB, "h100")


def write_config(folder: Path, name: str = "InternVL3-8B") -> Path:
    _, vit, llm_class, width, layers, heads, kv_heads, inner, vocab = PUBLISHED[name]
    llm = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    llm |= {"num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": vocab}
    config = {"model_type": "internvl_chat", "vision_config": {**vit, "image_size": 448, "patch_size": 14}}
    config |= {"llm_config": {**llm, "architectures": [llm_class]}, "template": "internvl2_5"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def config(folder: Path) -> Any:
    return load_config(folder)


@pytest.fixture(scope="module", autouse=True)
def counted_once(config: Any) -> Any:
    """Counting the weights of eight billion is the slow part of a plan."""
    counts: dict[object, Any] = {}
    count = planning.parameter_counts

    def remembered(config: Any, trained: TrainablePart, num_adapter_layers: int) -> Any:
        key = (trained, num_adapter_layers)
        counts[key] = counts.get(key) or count(config, trained, num_adapter_layers)
        return counts[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "parameter_counts", remembered)
        yield


def plan(config: Any, workload: Workload = WORKLOAD, machine: Machine = MACHINE, **choices: Any) -> RunPlan:
    return plan_run(config, LORA, 5, workload, machine, Choices(**choices))


def test_float32_takes_twice_the_memory_and_is_told_what_would_fit(config: Any) -> None:
    one = replace(MACHINE, gpus=1)
    settings = planning.Settings(32, 1, Recomputation(), 1)
    half, single, plain = (
        planning.plan_as_set(config, LORA, 5, WORKLOAD, one, settings, storage=storage)
        for storage in (planning.HALF_PRECISION, planning.SINGLE_PRECISION, planning.PLAIN)
    )
    assert single.state_bytes["weights"] == plain.state_bytes["weights"] == 2 * half.state_bytes["weights"]
    # Masks of dropout are a byte an element in either.
    assert 1.7 < sum(plain.kept_bytes.values()) / sum(half.kept_bytes.values()) < 2
    trained = single.state_bytes["optimizer"] / 12
    assert single.peak_bytes - plain.peak_bytes == 4 * trained, "without DeepSpeed the weights are the masters"
    everything = Choices(1, Recomputation.of_layers(28), 0)
    with pytest.raises(UserError, match=r"no DeepSpeed needs .* it would fit with --bf16 True under DeepSpeed \("):
        plan_run(config, LORA, 5, WORKLOAD, replace(one, memory_bytes=40 * GIB), everything, storage=planning.PLAIN)


def test_the_scripts_run_of_8b_is_plausible(config: Any) -> None:
    made = plan(config)
    assert made.tokens == 48 * (256 + 2 + 38) + 110 + 100
    cheap = Recomputation(cheap=True)
    assert made.settings == planning.Settings(48, 1, cheap, 2), "the inside of all 28 layers is more than 80 GiB"
    assert 40 * GIB < made.peak_bytes < 80 * GIB
    assert (made.steps, made.accumulation) == (123, 4)
    # 4N a token for 6.5 billion weights in the LLM's layers, 40 frames on average; few rows pass the last feed-forward.
    last_ffn = 3 * 3584 * 18944
    assert made.flops["LLM"] == pytest.approx(4 * (6.525e9 - last_ffn) * 12050, rel=0.01)
    in_passes = 4 * sum(made.pass_seconds.values())
    assert in_passes < made.seconds_per_step < 1.01 * in_passes, "an optimizer step over a quarter of the weights"
    assert 0.1 < made.hours < 1


def test_bytes_of_weights_and_states_are_exact(config: Any) -> None:
    counted, of_it = planning.parameter_counts(config, LORA, 5)
    every, trained = sum(counted.values()), sum(of_it.values())
    linear = nn.Linear(3, 5).bfloat16()
    adam = torch.optim.AdamW([nn.Parameter(linear.weight.detach().float())])
    adam.param_groups[0]["params"][0].grad = torch.ones(5, 3)
    adam.step()
    state = next(iter(adam.state.values()))
    bytes_a_weight = sum(s.nbytes for s in state.values() if s.ndim) // 15 + 4
    assert bytes_a_weight == 12
    for stage, (weights, gradients, optimizer) in {1: (1, 1, 4), 2: (1, 4, 4), 3: (4, 4, 4)}.items():
        states = plan(config, zero_stage=stage).state_bytes
        assert states["weights"] == -(-every * 2 // weights)
        assert states["gradients"] == -(-trained * 4 // gradients)
        assert states["optimizer"] == -(-trained * bytes_a_weight // optimizer)
        assert bool(states["weights gathered by ZeRO-3"]) == (stage == 3)


def test_the_deepspeed_file_keeps_what_the_plan_counts() -> None:
    zero = DeepSpeedZeroConfig(**json.loads((ROOT / "zero_stage3_config.json").read_text())["zero_optimization"])
    assert zero.max_live_parameters == planning.LIVE_PARAMETERS
    assert zero.overlap_comm
    buckets = 2 * zero.reduce_bucket_size + zero.prefetch_bucket_size
    assert int(1.5 * GIB) + buckets * planning.WEIGHT_BYTES == planning.WORKSPACE_BYTES


def test_memory_grows_with_frames_and_falls_with_gpus(config: Any) -> None:
    by_frames = [
        plan(config, replace(WORKLOAD, max_frames=f), recomputation=EVERYTHING).peak_bytes for f in (32, 40, 48)
    ]
    assert by_frames == sorted(set(by_frames))
    thrifty = {"recomputation": EVERYTHING, "zero_stage": 3}
    by_gpus = [plan(config, machine=replace(MACHINE, gpus=g), **thrifty).peak_bytes for g in (2, 3, 8)]
    assert by_gpus == sorted(set(by_gpus), reverse=True)


def test_more_memory_buys_a_faster_run(config: Any) -> None:
    small, large = (plan(config, machine=replace(MACHINE, memory_bytes=gib * GIB)) for gib in (20, 160))
    assert (small.settings.recomputation, small.settings.zero_stage) == (EVERYTHING, 3)
    assert (large.settings.recomputation, large.settings.zero_stage) == (Recomputation(), 1)
    assert large.seconds_per_step < small.seconds_per_step
    short = plan(config, replace(WORKLOAD, min_frames=4, max_frames=4, batch_size=64))
    assert short.settings.micro_batch > 1, "a few frames do not keep a GPU busy"


@pytest.mark.parametrize(
    ("gib", "gpus", "choices", "words"),
    [
        (24, 4, {"recomputation": Recomputation()}, "all layers computed again$"),
        (24, 4, {"micro_batch": 3, "recomputation": EVERYTHING}, "1 sample a pass$"),
        (24, 4, {"zero_stage": 1, "recomputation": EVERYTHING}, "ZeRO-3$"),
        (
            24,
            4,
            {"zero_stage": 1, "recomputation": Recomputation()},
            "computed again, 1 sample a pass and ZeRO-3$",
        ),
        (18, 4, {}, r"at most \d+ frames$"),
        (7, 4, {}, "GPUs of 19 GiB$"),
    ],
)
def test_what_cannot_fit_is_refused_with_a_change_that_helps(
    gib: int, gpus: int, choices: dict[str, Any], words: str, config: Any
) -> None:
    machine = replace(MACHINE, memory_bytes=gib * GIB, gpus=gpus)
    with pytest.raises(UserError, match=rf"on each of {gpus} GPUs, .* of {gib} GiB; it would fit with .*{words}"):
        plan(config, machine=machine, **choices)


def test_more_gpus_help_where_states_are_large(config: Any) -> None:
    full = TrainablePart(0, freeze_llm=False, freeze_mlp=False, freeze_backbone=True)
    with pytest.raises(UserError, match=r"it would fit with 3 GPUs of this memory \(.*ZeRO-3\)$"):
        plan_run(config, full, 5, WORKLOAD, replace(MACHINE, gpus=1))


def test_the_number_of_frames_named_is_the_largest_that_fits(config: Any) -> None:
    machine = replace(MACHINE, memory_bytes=18 * GIB)
    with pytest.raises(UserError) as refused:
        plan(config, machine=machine)
    frames = int(str(refused.value).split("at most ")[-1].split()[0])
    fitting = replace(WORKLOAD, min_frames=1, max_frames=frames)
    assert plan(config, fitting, machine).settings.frames == frames
    with pytest.raises(UserError):
        plan(config, replace(fitting, max_frames=frames + 1), machine)


def test_the_command_reads_the_meta(
    folder: Path, shapes_meta: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["plan", "--model_name_or_path", str(folder), "--meta_path", str(shapes_meta), "--batch_size", "4"]
    assert main([*argv, "--json"]) == 0
    out = capsys.readouterr().out
    made = json.loads(out[out.index("{") :])
    assert made["steps"] == 3, "6 objects with 5 captions each, twice, 4 a step"
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "up to 48 frames, 1 a pass, what is cheap in the LLM computed again, ZeRO-2" in text
    assert "3 steps of 1 x 1 x 4 samples" in text
    assert "h100, scaled from h200: products 760, LoRA 146 (rank 128), attention 514 TFLOP/s" in text
    assert "LLM, element by element" in text
    assert main([*argv, "--num_passes", "800", "--captions_per_pass", "1"]) == 0
    assert "400 steps" in capsys.readouterr().out
    # Before there is data, in a folder that is no checkout.
    monkeypatch.chdir(folder)
    assert main(argv[:3]) == 0
    planned = capsys.readouterr()
    assert planned.err.startswith("there is no data yet") and "123 steps of 4 x 1 x 4 samples" in planned.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gpu_memory_gb", "10"], "it would fit with"),
        (["--batch_size", "3"], "--batch_size 3: expected at least one sample for each of 4 GPUs"),
        (["--min_num_frame", "50"], "--min_num_frame 50"),
    ],
)
def test_the_command_refuses(flags: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--model_name_or_path", str(folder), "--num_passes", "9", *flags]) == 1
    assert message in capsys.readouterr().err


def test_kinds_of_gpu_are_those_of_the_planner() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    (kinds,) = (action.choices for action in parser._actions if action.dest == "gpu")
    assert kinds is not None and set(kinds) == GPUS.keys()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("Tesla T4", None),
    ],
)
def test_a_gpu_is_known_by_its_name(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind
