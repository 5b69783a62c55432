"""Run under torchrun: build the model under ZeRO-3, write the gradients that rank 0 gathered; then `zero3_matrix`."""

from __future__ import annotations

import sys
from pathlib import Path

import deepspeed
import torch
from safetensors.torch import save_file
from transformers.integrations import HfDeepSpeedConfig

from internvl_chat.files import write_json
from internvl_chat.train.arguments import ModelArguments
from internvl_chat.train.build import build_model
from tests.train.zero3_matrix import all_losses


def main(base: str, out: Path) -> None:
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    config = {
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "torch_adam": True}},
    }
    keep_alive = HfDeepSpeedConfig(config)
    arguments = ModelArguments(base, num_adapter_layers=2, use_llm_lora=4, freeze_backbone=True)
    torch.manual_seed(3)
    model, _ = build_model(arguments, torch.float32)
    named = dict(model.named_parameters())
    with deepspeed.zero.GatheredParameters(list(named.values())):
        weights = {f"weight.{name}": p.detach().clone() for name, p in named.items() if ".box_adapters." in name}

    engine, *_ = deepspeed.initialize(
        model=model, config=keep_alive.config, model_parameters=[p for p in named.values() if p.requires_grad]
    )
    image_token, frames = model.config.image_token_id, 3
    tokens_per_frame = model.config.image_seq_length
    generator = torch.Generator().manual_seed(engine.global_rank)
    ids = torch.tensor([[5, 6] + [image_token] * (frames * tokens_per_frame) + [7, 8, 9]])
    batch = {
        "input_ids": ids,
        "labels": torch.where(ids == image_token, -100, ids),
        "vision": {
            "pixel_values": torch.randn(frames, 3, 80, 80, generator=generator),
            "boxes": torch.tensor([[100, 200, 600, 700], [0, 0, 0, 0], [300, 0, 1000, 500]]),
        },
    }
    # Branches that start at zero pass no gradient to what stands before them until their last layer has moved.
    gradients: dict[str, torch.Tensor] = {}
    for _ in range(2):
        engine.backward(engine(**batch).loss)
        gradients = {
            f"gradient.{name}": deepspeed.utils.safe_get_full_grad(p).clone()
            for name, p in named.items()
            if p.requires_grad
        }
        engine.step()
    if engine.global_rank == 0:
        save_file({k: v.contiguous() for k, v in {**weights, **gradients}.items()}, out)
    losses = all_losses(base)
    if engine.global_rank == 0:
        write_json(out.with_suffix(".json"), losses)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
