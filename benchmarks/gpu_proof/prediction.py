"""Captioning at full size: seconds to read a clip, tokens a second, launches a token; LoRA folded in, and apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.counting import Launches
from benchmarks.generate import NEVER, NumbersAsText, make_clips
from benchmarks.gpu_proof.scale import Row, Scale, finish, free_memory
from benchmarks.gpu_proof.training import profiled
from benchmarks.workloads import config_of
from internvl_chat.inference.batch_limits import default_batch_tokens
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.ensemble import Ensemble
from internvl_chat.inference.generation import Captioners
from internvl_chat.inference.prefill import read_prompts
from internvl_chat.inference.ranks import Ranks
from internvl_chat.inference.requests import EncodedClip, ViewedClip, ViewedPrompt
from internvl_chat.inference.weights import folded
from internvl_chat.model.shared_prompt import use_shared_prompts

# Rows beyond which a step is no longer bound by the host: more would only take longer to show the same.
_MOST_ROWS = 2048
_SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "8 beams": {"num_beams": 8, "num_candidates": 8},
    "32 candidates": {"temperature": 0.7, "num_candidates": 32},
}


def with_folded_lora(scale: Scale) -> Iterator[Row]:
    """As prediction loads a checkpoint."""
    yield from _decoding(scale, folded, "folded")


def with_lora_apart(scale: Scale) -> Iterator[Row]:
    """As with --keep_lora."""
    yield from _decoding(scale, lambda model: model.get_base_model(), "apart")


@torch.inference_mode()
def _decoding(scale: Scale, prepare: Callable[[Any], Any], lora: str) -> Iterator[Row]:
    # Chosen while the memory is still free, as prediction does.
    batch_tokens = default_batch_tokens([config_of(scale.workload)], Ranks())
    model = prepare(scale.model().eval())
    free_memory()
    (clip,) = make_clips(scale.workload, 1)
    use_shared_prompts(model)
    views = clip.views
    read_prompts(model, views, scale.new_tokens)
    finish()
    started = time.perf_counter()
    prompts = read_prompts(model, views, scale.new_tokens)
    finish()
    yield {"measure": f"a clip read, LoRA {lora}", "s": time.perf_counter() - started}
    yield from _token_launches(model, prompts, lora, scale)
    del prompts
    free_memory()
    length = len(views[0].prompts[0].input_ids)
    for name, how in _SETTINGS.items():
        decoding = Decoding(max_new_tokens=scale.new_tokens, **how)
        most = max(1, batch_tokens // (length + decoding.rows * scale.new_tokens))
        asks = min(most, max(1, _MOST_ROWS // decoding.rows)) if scale.device.type == "cuda" else 2
        try:
            row = _decode(model, clip, asks, how, scale)
        except torch.OutOfMemoryError:
            row = {"failed": f"out of memory with {asks} asks"}
        yield {"measure": f"{name}, LoRA {lora}", "largest_batch": most, **row}
        free_memory()


def _decode(model: Any, clip: EncodedClip, asks: int, how: dict[str, Any], scale: Scale) -> Row:
    """Seconds a token of all rows: what more tokens take longer, so that reading the prompts drops out."""
    many = _asks_about(clip, asks)
    taken = []
    # The first batch of a process also loads kernels.
    if scale.device.type == "cuda":
        _seconds(model, many, 2, how)
    for new_tokens in (max(2, scale.new_tokens // 3), scale.new_tokens):
        taken.append((new_tokens, _seconds(model, many, new_tokens, how)))
    (few, short), (more, long) = taken
    step_s = (long - short) / (more - few)
    rows = asks * Decoding(**how).rows
    return {"asks": asks, "ms_per_token": step_s * 1e3, "tokens_per_s": rows / step_s if step_s > 0 else None}


def _seconds(model: Any, many: EncodedClip, new_tokens: int, how: dict[str, Any]) -> float:
    """To read the prompts and to decode so many tokens of each row."""
    tokenizer: Any = NumbersAsText()
    captioners = Captioners(Ensemble([model]), [0], tokenizer, [NEVER], Decoding(max_new_tokens=new_tokens, **how))
    started = time.perf_counter()
    captioners([many])
    finish()
    return time.perf_counter() - started


def _asks_about(clip: EncodedClip, asks: int) -> EncodedClip:
    """So many questions about one clip, which is then read once: only decoding is looked at."""
    (view,) = clip.views
    first = view.prompts[0]
    prompts = tuple(ViewedPrompt([*first.input_ids[:-2], 10 + n, 9], first.tensors) for n in range(asks))
    ids = tuple(f"{clip.ids[0]}-{n}" for n in range(asks))
    return EncodedClip(ids, (ViewedClip(view.vision, prompts),))


def _token_launches(model: Any, prompts: Any, lora: str, scale: Scale) -> Iterator[Row]:
    def step() -> None:
        model.model.language_model(
            inputs_embeds=torch.zeros(
                1, 1, scale.workload.text["hidden_size"], device=scale.device, dtype=torch.bfloat16
            ),
            position_ids=prompts.next_positions[:, None],
            prompts=prompts,
            use_cache=True,
        )

    layers = scale.workload.text["num_hidden_layers"]
    with Launches() as counted:
        step()
    row = {"kernels": counted.kernels, "kernels_per_layer": counted.kernels / layers, "waits": counted.waits}
    if scale.device.type == "cuda":
        row["profiled_kernels"], row["profiled_waits"] = profiled(step)
    yield {"measure": f"a token, LoRA {lora}", **row}
