"""Passes of every kind under ZeRO-3 with all weights apart, and what they lose; for `zero3_probe`.

With the persistence threshold at zero no parameter stays whole, as it is with large models: what a layer needs is
gathered, let go, and gathered again for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import deepspeed
import torch
from torch import distributed
from transformers.integrations import HfDeepSpeedConfig

from internvl_chat.contracts import SharedPrefix
from internvl_chat.model.memory.recomputation import Recomputation
from internvl_chat.train.arguments import ModelArguments
from internvl_chat.train.build import build_model

LAYERS, FRAMES, TOKENS = 4, 2, 2
AGAIN = {
    "nothing": Recomputation(),
    "cheap": Recomputation(cheap=True),
    "half": Recomputation(2, tower=True, cheap=True),
    "layers": Recomputation.of_layers(LAYERS),
}
# A row of two samples with pictures, text alone on the second rank, a row on it whose sample could not be read.
BATCHES = ("packed", "text alone", "skipped")


def batch_of(kind: str, rank: int, config: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(7 * rank + len(kind))
    alone = kind == "text alone" and rank == 1
    ids: list[int] = []
    places: list[int] = []
    layout = []
    for answers in ((4, 3), (5,)):
        shown = [] if alone else [config.image_token_id] * (FRAMES * config.image_seq_length)
        prompt = [5, 6, *shown, 7, 8, 9 + rank]
        start = len(ids) + len(prompt)
        ids += [*prompt, *range(20, 20 + sum(answers))]
        places += range(start - 1, len(ids) - 1)
        layout.append(SharedPrefix(len(prompt), answers))
    targets = torch.tensor([places])
    given = torch.tensor([ids])
    # What could not be read stands there as a pass of no weight.
    weight = 0.0 if kind == "skipped" and rank == 1 else 1.0
    if alone:
        # As the collator does: a blank, so that all ranks run the same layers.
        vision = {"pixel_values": torch.zeros(1, 3, 80, 80), "boxes": torch.zeros(1, 4, dtype=torch.int64)}
    else:
        boxes = torch.tensor([[100, 200, 600, 700], [300, 0, 1000, 500]] * FRAMES)
        vision = {"pixel_values": torch.randn(2 * FRAMES, 3, 80, 80, generator=generator), "boxes": boxes}
    return {
        "input_ids": given,
        "position_ids": torch.cat([torch.arange(prefix.length) for prefix in layout])[None],
        "layout": tuple(layout),
        "target_positions": targets,
        "target_ids": given[0, targets + 1],
        "loss_weights": torch.full(targets.shape, weight),
        "num_items_in_batch": 12,
        "vision": {**vision, "pixel_values": vision["pixel_values"].bfloat16()},
    }


def losses_of(base: str, attention: str, again: Recomputation, config: HfDeepSpeedConfig) -> Iterator[float]:
    """Of each kind of row on either rank, then the first rank's answer; losses again, where nothing is made again."""
    arguments = ModelArguments(
        base, num_adapter_layers=2, use_llm_lora=4, freeze_backbone=True, attn_implementation=attention
    )
    torch.manual_seed(3)
    model, _ = build_model(arguments, torch.bfloat16, recomputation=again)
    engine, *_ = deepspeed.initialize(
        model=model, config=config.config, model_parameters=[p for p in model.parameters() if p.requires_grad]
    )
    assert not any(p.ds_persist for p in model.parameters()), "a parameter stays whole"
    yield from _losses(engine)
    yield from _written(engine)
    if again == AGAIN["nothing"]:
        yield from _losses(engine)


def _losses(engine: Any) -> Iterator[float]:
    """Of each kind of row on either rank; an update behind each."""
    engine.train()
    for kind in BATCHES:
        torch.manual_seed(0)
        loss = engine(**batch_of(kind, engine.global_rank, engine.module.config)).loss
        engine.backward(loss)
        engine.step()
        everyones = [torch.zeros(()) for _ in range(distributed.get_world_size())]
        distributed.all_gather(everyones, loss.detach().float())
        yield from (one.item() for one in everyones)


def _written(engine: Any) -> Iterator[int]:
    """The rank's answer, token by token: one is longer than the other."""
    engine.eval()
    prompt = torch.tensor([[5, 6, 7 + engine.global_rank]])
    longest = TOKENS + 3 * engine.global_rank
    with torch.no_grad():
        ids = engine.module.generate(
            input_ids=prompt, max_new_tokens=longest, min_new_tokens=longest, do_sample=False, synced_gpus=True
        )
    assert ids.shape[1] == 3 + longest
    yield from ids[0, 3:].tolist()


def all_losses(base: str) -> dict[str, list[float]]:
    """By attention and what is computed again."""
    config = HfDeepSpeedConfig(
        {
            "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
            "bf16": {"enabled": True},
            "data_types": {"grad_accum_dtype": "fp32"},
            "train_micro_batch_size_per_gpu": 1,
            "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "torch_adam": True}},
        }
    )
    ways = [("sdpa", name) for name in AGAIN] + [("eager", name) for name in ("nothing", "half")]
    return {f"{attention}, {name}": list(losses_of(base, attention, AGAIN[name], config)) for attention, name in ways}
