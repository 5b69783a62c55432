"""The machine, and the rates of single kernels at the model's sizes: what the planner's seconds are made of."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from typing import Any

import torch
import torch.nn.functional as nnf
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu_proof.scale import Row, Scale, seconds_of
from benchmarks.workloads import LORA_RANK
from internvl_chat.model.memory.rms_norm import rms_norm
from internvl_chat.model.shared_prompt import additive_bias, attend_to_prompts
from internvl_chat.planning.cards import GPUS, kind_of
from internvl_chat.planning.inspection import GIB

_PACKAGES = ("torch", "torchvision", "transformers", "peft", "accelerate", "timm", "safetensors")


def facts(scale: Scale) -> Iterator[Row]:
    """Card, memory and versions; whether the planner has the card as it is."""
    row: Row = {"measure": "machine", "python": platform.python_version()}
    row |= {name: metadata.version(name) for name in _PACKAGES}
    if scale.device.type == "cuda":
        properties = torch.cuda.get_device_properties(scale.device)
        kind = kind_of(properties.name)
        row |= {
            "card": properties.name,
            "cuda": torch.version.cuda,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": round(properties.total_memory / GIB, 2),
            "planner_gib": GPUS[kind].memory_gib if kind else None,
        }
    else:
        row |= {"card": f"CPU, {torch.get_num_threads()} threads"}
    yield row


def kernels(scale: Scale) -> Iterator[Row]:
    """FLOP/s of products and of attention, bytes a second of what is done element by element."""
    text, rows = scale.workload.text, scale.matrix_rows
    width, inner = text["hidden_size"], text["intermediate_size"]
    with torch.device(scale.device):
        hidden = torch.randn(rows, width, dtype=torch.bfloat16)
        wide = torch.randn(rows, inner, dtype=torch.bfloat16)
        weight = torch.ones(width, dtype=torch.bfloat16)
        for name, columns in (("product", inner), ("LoRA product", LORA_RANK)):
            matrix = torch.randn(width, columns, dtype=torch.bfloat16)
            yield _rate(name, partial(torch.matmul, hidden, matrix), 2 * rows * width * columns, "tflops", scale)
        passes: dict[str, tuple[Callable[[], Any], int]] = {
            "RMSNorm": (lambda: rms_norm(hidden, weight, 1e-6), 4 * hidden.nbytes),
            "SwiGLU": (lambda: nnf.silu(wide) * wide, 3 * wide.nbytes),
            "dropout": (lambda: nnf.dropout(wide, 0.05), 2 * wide.nbytes + wide.numel()),
        }
    for name, (work, moved) in passes.items():
        yield _rate(name, work, moved, "gb_per_s", scale)
    yield from _attention(scale)
    yield from _attention_to_prompts(scale)


def _attention(scale: Scale) -> Iterator[Row]:
    text, rows = scale.workload.text, scale.matrix_rows
    heads, groups = text["num_attention_heads"], text["num_key_value_heads"]
    head = text["hidden_size"] // heads
    names = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
    backends = names if scale.device.type == "cuda" else {"flash": SDPBackend.FLASH_ATTENTION}
    for name, backend in backends.items():
        # The second is of another length: cuDNN makes a plan for each unless it is told not to.
        for length in (rows, rows - 16):
            query, key, value = (
                torch.randn(1, h, length, head, dtype=torch.bfloat16, device=scale.device, requires_grad=True)
                for h in (heads, groups, groups)
            )

            def both(q: Any = query, k: Any = key, v: Any = value, backend: SDPBackend = backend) -> None:
                if not q.is_cuda:
                    k, v = (s.repeat_interleave(heads // groups, dim=1) for s in (k, v))
                with sdpa_kernel(backend):
                    attended = nnf.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.is_cuda)
                attended.sum().backward()

            try:
                # Forward once and backward two and a half times the two products of half a square.
                flops = 7 * heads * head * length**2
                yield _rate(f"{name} attention, {length}, both ways", both, flops, "tflops", scale)
            except RuntimeError as error:
                yield {"measure": f"{name} attention, {length}", "failed": str(error).splitlines()[0]}


def _attention_to_prompts(scale: Scale) -> Iterator[Row]:
    """Of 8 beams an ask, as decoding does it: bytes a second of the prompts' keys and values."""
    text, length, asks, beams = scale.workload.text, scale.matrix_rows, 64, 8
    heads, groups = text["num_attention_heads"], text["num_key_value_heads"]
    head = text["hidden_size"] // heads
    query, key, value = (
        torch.randn(asks, groups, rows, head, dtype=torch.bfloat16, device=scale.device)
        for rows in (beams * heads // groups, length, length)
    )
    mask = torch.ones(asks, length, dtype=torch.long, device=scale.device)
    mask[:, 0] = 0
    for name, bias in (("", None), (", padded", additive_bias(mask, torch.bfloat16))):
        attend = partial(attend_to_prompts, query, key, value, bias, head**-0.5)
        yield _rate(f"attention of 8 beams to {asks} prompts{name}", attend, 2 * key.nbytes, "gb_per_s", scale)


def _rate(name: str, work: Callable[[], Any], amount: float, unit: str, scale: Scale) -> Row:
    # A kernel of a tenth of a millisecond is over before the clocks have come up.
    times = 50 if scale.device.type == "cuda" else 1

    def many() -> None:
        for _ in range(times):
            work()

    seconds = seconds_of(many, scale) / times
    return {"measure": name, "ms": seconds * 1e3, unit: amount / seconds / (1e12 if unit == "tflops" else 1e9)}
