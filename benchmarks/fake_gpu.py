"""A pass of real geometry, the real code on fake tensors: what it would take on a GPU is counted, nothing computed.

    python -m benchmarks.fake_gpu

Where a CPU keeps more than a GPU, something stands in: for attention a kernel that keeps its operands, its output and
a number a row; for dropout one that keeps a byte an element; for RMSNorm one that keeps its input. Prints a Markdown
table of W2 (InternVL3-8B, 32 frames, five captions) beside the planner's estimate.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from peft import get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.counting import AllocatedBytes, MovedBytes
from benchmarks.workloads import LORA_DROPOUT, TRAINED, W2, Workload, config_of, lora_config, shared_batch
from internvl_chat.model.families.internvl import IntentVCNetForConditionalGeneration
from internvl_chat.model.memory.lora_sum import sum_in_place
from internvl_chat.model.memory.recomputation import Recomputation, recompute
from internvl_chat.model.memory.rms_norm import fuse_norms
from internvl_chat.model.shared_prefix import use_shared_prefix_attention
from internvl_chat.planning.footprint import Footprint
from internvl_chat.planning.inspection import GIB
from internvl_chat.vision import Vision, moved


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = torch.empty_like(query)
        row_sums = torch.empty(query.shape[:3], dtype=torch.float32, device=query.device)
        ctx.save_for_backward(query, key, value, output, row_sums)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor, ...]:
        query, key, value, _output, _row_sums = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def fake_gpu() -> Iterator[FakeTensorMode]:
    """Fake tensors with a GPU's kernels; a check that looks into a tensor finds what it hopes for."""
    plain = torch.nn.functional.scaled_dot_product_attention

    def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if query.dim() != 4:
            return plain(query, key, value, *args, **kwargs)
        return _FusedAttention.apply(query, key, value)

    def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        return torch.native_dropout(input, p, train=True)[0] if p and training else input

    def rms_norm(input: torch.Tensor, shape: Any, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
        # On a CPU it is made of many operators; LayerNorm's single one reads and keeps the same.
        return torch.nn.functional.layer_norm(input, shape, weight, None, eps)

    with (
        mock.patch("torch.nn.functional.dropout", dropout),
        mock.patch("torch.nn.functional.rms_norm", rms_norm),
        mock.patch("internvl_chat.model.shared_prefix.reads_grouped_heads", lambda _query: True),
        mock.patch("torch.nn.functional.scaled_dot_product_attention", fused),
        mock.patch("transformers.models.internvl.modeling_internvl.torch_compilable_check"),
        mock.patch("torch.Tensor.any", lambda tensor, *_args, **_kwargs: True),
        FakeTensorMode() as mode,
    ):
        yield mode


def fake_model(workload: Workload, dropout: float) -> nn.Module:
    """The model in bfloat16; LoRA is put in while there are no weights at all."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            model = IntentVCNetForConditionalGeneration(config_of(workload))
            fuse_norms(model)
            use_shared_prefix_attention(model)
            wrapped = get_peft_model(model, lora_config(dropout), autocast_adapter_dtype=False)
            sum_in_place(wrapped)
    finally:
        torch.set_default_dtype(before)
    TRAINED.mark(wrapped)
    return wrapped.train()


@contextmanager
def fake_pass(workload: Workload, again: Recomputation, dropout: float) -> Iterator[tuple[nn.Module, dict[str, Any]]]:
    """A model on fake tensors, and what its forward pass is given."""
    model = fake_model(workload, dropout)
    recompute(model.get_base_model(), again)  # type: ignore[operator]
    batch: dict[str, Any] = dict(shared_batch(workload))
    with fake_gpu() as mode:
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                fake = torch.empty(parameter.shape, dtype=parameter.dtype)
                setattr(module, name, nn.Parameter(fake, parameter.requires_grad))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
        tensors = {k: mode.from_tensor(v) for k, v in batch.items() if isinstance(v, torch.Tensor)}
        vision: Vision = {k: mode.from_tensor(v) for k, v in batch["vision"].items()}
        # Gradients of weights are counted by their number elsewhere: here they are let go at once.
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda done: setattr(done, "grad", None))
        yield model, {**batch, **tensors, "vision": moved(vision, torch.device("cpu"), torch.bfloat16)}


def counted_bytes(workload: Workload, again: Recomputation, dropout: float = LORA_DROPOUT) -> tuple[int, int]:
    """Bytes of activations that are kept when the backward pass begins, and the most of a pass."""
    with fake_pass(workload, again, dropout) as (model, given):
        weights = [p.untyped_storage()._cdata for p in model.parameters()]
        with AllocatedBytes() as allocated:
            allocated.alive.update(weights)
            loss = model(**given).loss
            kept = allocated.now
            loss.backward()
    return kept, allocated.peak


def counted_moves(workload: Workload, again: Recomputation, dropout: float = LORA_DROPOUT) -> int:
    """Bytes that a forward and backward pass reads and writes outside of its products and its attention."""
    with fake_pass(workload, again, dropout) as (model, given), MovedBytes() as counted:
        model(**given).loss.backward()
    return counted.moved


def estimated_bytes(workload: Workload, again: Recomputation, dropout: float = LORA_DROPOUT) -> tuple[int, int]:
    """The same as the planner has it."""
    footprint = Footprint(config_of(workload), TRAINED, workload.num_adapter_layers, dropout)
    shape = workload.pass_shape
    return sum(footprint.kept_bytes(shape, again).values()), footprint.peak_activation_bytes(shape, again)


def main() -> None:
    layers = W2.text["num_hidden_layers"]
    workload = W2.with_frames(32)
    sys.stdout.write(
        "| computed again | kept, counted | estimated | peak, counted | estimated |\n|---|---|---|---|---|\n"
    )
    for again in Recomputation.steps(layers):
        counted, estimated = counted_bytes(workload, again), estimated_bytes(workload, again)
        cells = [f"{size / GIB:.2f}" for pair in zip(counted, estimated, strict=True) for size in pair]
        sys.stdout.write(f"| {again.as_text()} | {' | '.join(cells)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
