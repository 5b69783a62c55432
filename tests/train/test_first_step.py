"""What stops a run at its start: rounded positions, and a loss that is no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from internvl_chat.contracts import UserError
from internvl_chat.train.first_step import check_first_loss, check_rotary
from internvl_chat.train.trainer import BoxCaptionTrainer
from tests.helpers import tiny_base
from tests.train.test_trainer import run


def test_positions_that_were_rounded_are_named() -> None:
    model = tiny_base()
    check_rotary(model)
    model.to(torch.bfloat16)
    with pytest.raises(UserError, match=r"rotary_emb\.inv_freq is torch.bfloat16: expected torch.float32"):
        check_rotary(model)


def test_the_first_rank_without_a_loss_is_named() -> None:
    check_first_loss(torch.tensor([2.0, 0.0]))
    with pytest.raises(UserError, match="the first loss is nan on rank 1 of 3"):
        check_first_loss(torch.tensor([2.0, torch.nan, torch.inf]))


def test_weights_of_tokens_are_not_rounded_with_the_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As under DeepSpeed, where the trainer casts every number to the model's dtype."""
    trainer = BoxCaptionTrainer.__new__(BoxCaptionTrainer)
    trainer.args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    monkeypatch.setattr(
        Trainer, "_prepare_inputs", lambda _self, inputs: {name: t.bfloat16() for name, t in inputs.items()}
    )
    weights = torch.tensor([[1 / 3, 0.70711]])
    given = trainer._prepare_inputs({"loss_weights": weights, "pixels": torch.ones(2)})
    assert torch.equal(given["loss_weights"], weights) and given["pixels"].dtype == torch.bfloat16


def test_a_run_whose_first_loss_is_no_number_stops(
    shapes_meta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = Trainer.compute_loss

    def broken(*args: Any, **kwargs: Any) -> torch.Tensor:
        return computed(*args, **kwargs) * torch.nan

    monkeypatch.setattr(Trainer, "compute_loss", broken)
    with pytest.raises(UserError, match="the first loss is nan on rank 0 of 1"):
        run(shapes_meta, tmp_path / "run", "--per_device_train_batch_size 1")
