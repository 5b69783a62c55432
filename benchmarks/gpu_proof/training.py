"""A training step at full size in every way that it can be taken: seconds, share of the peak, memory, launches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from benchmarks import workloads
from benchmarks.counting import AllocatedBytes, Launches
from benchmarks.gpu_proof.scale import Row, Scale, finish, free_memory, seconds_of
from internvl_chat.contracts import UserError
from internvl_chat.model.memory.lora_sum import sum_in_place
from internvl_chat.model.memory.recomputation import Recomputation, recompute
from internvl_chat.planning.cards import GPUS, Rates
from internvl_chat.planning.inspection import GIB
from internvl_chat.planning.plan import Choices, Machine, plan_run
from internvl_chat.planning.plan import Workload as Epoch
from internvl_chat.planning.seconds import optimizer_seconds, pass_seconds
from internvl_chat.train.workload import gpu_kind
from internvl_chat.vision import moved

# Where there is no GPU to plan for, or one that the planner does not know.
_PLANNED_KIND = "h100"


@dataclass(frozen=True)
class Way:
    """How a step is taken: what is computed again, parts compiled or not, one caption a pass or all.

    Args:
        lora_apart: product, scaling and sum of LoRA one by one, as PEFT has them.
        norms_apart: RMSNorm operator by operator in float32, as transformers has it.
    """

    name: str
    again: Recomputation
    compiled: bool = False
    lora_apart: bool = False
    norms_apart: bool = False
    one_a_pass: bool = False


def steps(scale: Scale) -> Iterator[Row]:
    """Each way in turn, in one process: what does not fit is said, and the next is tried."""
    model = scale.model()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    for way in _ways(scale, model):
        norms = mock.patch("torch.nn.functional.rms_norm", _norm_apart) if way.norms_apart else nullcontext()
        try:
            with norms:
                row = _step(way, model, optimizer, scale)
        except RuntimeError as error:
            # Out of memory, or no compiler on this machine: the other ways go on.
            row = {"failed": str(error).strip().splitlines()[0]}
        yield {"measure": way.name, **row}
        optimizer.zero_grad(set_to_none=True)
        free_memory()


def _ways(scale: Scale, model: nn.Module) -> list[Way]:
    everything = Recomputation.of_layers(scale.workload.text["num_hidden_layers"])
    planned, cheap = planned_recomputation(scale, model.config), Recomputation(tower=True, cheap=True)
    ways = [
        Way("default", planned),
        Way("default, norms operator by operator", planned, norms_apart=True),
        Way("default, LoRA's sum apart", planned, lora_apart=True),
        Way("nothing computed again", Recomputation()),
        Way("the cheap and the ViT computed again", cheap),
        Way("all layers computed again", everything),
        Way("all layers computed again, one caption a pass", everything, one_a_pass=True),
    ]
    if scale.device.type == "cuda":
        ways.append(Way("all layers computed again, token-wise parts compiled", everything, compiled=True))
    return ways


def planned_recomputation(scale: Scale, config: Any) -> Recomputation:
    """What the planner has computed again of this pass on one such GPU."""
    kind = gpu_kind() or _PLANNED_KIND
    memory = int(GPUS[kind].memory_gib * GIB)
    if scale.device.type == "cuda":
        memory = torch.cuda.get_device_properties(scale.device).total_memory
    work = scale.workload
    epoch = Epoch(1, work.captions, work.caption_tokens, True, work.frames, work.frames, 1, 1)
    try:
        plan = plan_run(
            config,
            workloads.TRAINED,
            work.num_adapter_layers,
            epoch,
            Machine(1, memory, kind),
            Choices(1, None, 1),
        )
    except UserError:
        return Recomputation.of_layers(work.text["num_hidden_layers"])
    return plan.settings.recomputation


def _norm_apart(hidden: torch.Tensor, _shape: Any, _weight: None, eps: float) -> torch.Tensor:
    wide = hidden.to(torch.float32)
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)


def _batches(scale: Scale, one_a_pass: bool) -> Sequence[dict[str, Any]]:
    work = scale.workload
    given: Sequence[Any] = workloads.separate_batches(work) if one_a_pass else [workloads.shared_batch(work)]

    def on_device(batch: dict[str, Any]) -> dict[str, Any]:
        tensors = {k: v.to(scale.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        return {**tensors, "vision": moved(batch["vision"], scale.device, torch.bfloat16)}

    return [on_device(batch) for batch in given]


def _step(way: Way, model: nn.Module, optimizer: torch.optim.Optimizer, scale: Scale) -> Row:
    core: Any = model.get_base_model()  # type: ignore[operator]
    core.gradient_checkpointing_disable()
    recompute(core, way.again)
    sum_in_place(model)
    for module in model.modules() if way.lora_apart else ():
        if isinstance(module, LoraLayer):
            module.lora_variant.clear()
    token_wise = [
        part
        for layer in core.model.language_model.layers
        for part in (layer.mlp, layer.input_layernorm, layer.post_attention_layernorm)
    ]
    for part in token_wise if way.compiled else ():
        part.compile(dynamic=True)
    batches = _batches(scale, way.one_a_pass)

    def step() -> None:
        for batch in batches:
            (model(**batch).loss / len(batches)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    started = time.perf_counter()
    step()
    finish()
    row: Row = {"computed_again": way.again.as_text(), "first_step_s": time.perf_counter() - started}
    row |= _memory(model, batches[0], way, scale)
    optimizer.zero_grad(set_to_none=True)
    # The slowest way by far is the one that no other is told apart from.
    seconds = seconds_of(step, replace(scale, warm_ups=0, steps=min(2, scale.steps)) if way.one_a_pass else scale)
    footprint = scale.footprint(core.config)
    flops = sum(footprint.flops(scale.workload.pass_shape).values())
    row |= {"step_s": seconds, "s_per_caption": seconds / scale.workload.captions}
    row["tflops"] = flops / seconds / 1e12
    if kind := gpu_kind():
        peak, rates = GPUS[kind].peak_flops, Rates.of(GPUS[kind])
        if not way.one_a_pass:
            trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
            planned = sum(pass_seconds(footprint, scale.workload.pass_shape, way.again, rates).values())
            row["planned_step_s"] = planned + optimizer_seconds(trained, rates)
        row["mfu"] = flops / seconds / peak
        row["hfu"] = (flops + footprint.recomputed_flops(scale.workload.pass_shape, way.again)) / seconds / peak
    for part in token_wise:
        part._compiled_call_impl = None
    return row


def _memory(model: nn.Module, batch: dict[str, Any], way: Way, scale: Scale) -> Row:
    """Of one pass, gradients included, beside what the planner says of it."""
    trained_bytes = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    free_memory()
    if scale.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model(**batch).loss.backward()
        pass_bytes = torch.cuda.max_memory_allocated() - before
        row = {"peak_gib": torch.cuda.max_memory_allocated() / GIB}
        row["reserved_gib"] = torch.cuda.max_memory_reserved() / GIB
    else:
        with AllocatedBytes() as allocated:
            model(**batch).loss.backward()
        pass_bytes, row = allocated.peak, {}
    if way.one_a_pass:
        return row
    footprint = scale.footprint(model.config)
    planned = footprint.peak_activation_bytes(scale.workload.pass_shape, way.again) + trained_bytes
    return {**row, "pass_gib": pass_bytes / GIB, "planned_gib": planned / GIB, "planned_ratio": planned / pass_bytes}


def launches(scale: Scale) -> Iterator[Row]:
    """Kernels and waits of a pass: counted operator by operator, and on a GPU those that the profiler saw."""
    model = scale.model()
    (batch,) = _batches(scale, one_a_pass=False)
    with Launches() as forward:
        loss = model(**batch).loss
    with Launches() as backward:
        loss.backward()
    kernels, waits = forward.kernels + backward.kernels, forward.waits + backward.waits
    yield {"measure": "a training pass, counted", "kernels": kernels, "waits": waits}
    if scale.device.type == "cuda":
        model.zero_grad(set_to_none=True)
        kernels, waits = profiled(lambda: model(**batch).loss.backward())
        yield {"measure": "a training pass, profiled", "kernels": kernels, "waits": waits}


def profiled(work: Any) -> tuple[int, int]:
    """Kernels that the device ran, and how often the host waited for it."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
        finish()
    events = profile.events() or []
    kernels = sum(e.device_type == torch.autograd.DeviceType.CUDA and "Mem" not in e.name for e in events)
    # The last one is that of `finish`.
    waits = sum(e.name in ("cudaStreamSynchronize", "cudaDeviceSynchronize") for e in events) - 1
    return kernels, waits
