"""What stops a run: rounded positions, and losses and weights that are no numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

from internvl_chat.contracts import UserError
from internvl_chat.model.checkpoint import complete_checkpoints
from internvl_chat.train.sanity import check_first_loss, check_loss, check_rotary, check_weights
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


def test_what_a_run_diverges_into_is_named() -> None:
    check_loss(9e30, 3, "out")
    with pytest.raises(UserError, match="the loss is inf at step 3: the run has diverged and stops; lower --"):
        check_loss(float("inf"), 3, "out")
    model = torch.nn.Linear(2, 3)
    check_weights(model, 4, "out")
    model.bias.data[1] = torch.nan
    with pytest.raises(UserError, match="^bias holds numbers that are none, at step 4: .* what out holds from before"):
        check_weights(model, 4, "out")
    model.bias.requires_grad_(False)
    check_weights(model, 4, "out")
    # Under ZeRO-3 a rank has its own part, and the whole is empty.
    model.weight.ds_tensor, model.weight.ds_numel = torch.tensor([1.0, torch.inf]), 2  # type: ignore[assignment]
    model.weight.data = torch.empty(0)
    with pytest.raises(UserError, match="^weight holds numbers that are none"):
        check_weights(model, 4, "out")
    # Parts are alike in size: what fills up the last one is nobody's weight.
    model.weight.ds_numel = 1  # type: ignore[assignment]
    check_weights(model, 4, "out")


def test_a_run_that_diverges_stops_and_leaves_its_good_checkpoint(
    shapes_meta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient overflows at the third step: the third's weights are no numbers, nor is the loss of the fourth."""
    stepped = BoxCaptionTrainer.training_step

    def overflows(self: BoxCaptionTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = stepped(self, *args, **kwargs)
        for parameter in self.model.parameters() if self.state.global_step == 2 else ():
            if parameter.grad is not None:
                parameter.grad.mul_(torch.inf)
        return loss

    monkeypatch.setattr(BoxCaptionTrainer, "training_step", overflows)
    flags = "--per_device_train_batch_size 2 --max_steps 6 --save_total_limit 1 --learning_rate 0.01"
    for name, saving, said in (
        ("log", 2, "the loss is nan at step 4"),
        ("save", 3, "numbers that are none, at step 3"),
    ):
        with pytest.raises(UserError, match=said):
            run(shapes_meta, tmp_path / name, f"{flags} --save_steps {saving}")
    (kept,) = complete_checkpoints(tmp_path / "log")
    assert kept.name == "checkpoint-2" and not complete_checkpoints(tmp_path / "save")
    assert all(t.isfinite().all() for path in kept.glob("*.safetensors") for t in load_file(path).values())


@pytest.mark.parametrize("stage", [2, 3])
def test_below_zero3_no_rank_copies_the_model_to_save_it(
    stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = BoxCaptionTrainer.__new__(BoxCaptionTrainer)
    trainer.args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    trainer.args.deepspeed = {"zero_optimization": {"stage": stage}}
    trainer.is_deepspeed_enabled = True
    calls: list[tuple[str, Any]] = []
    monkeypatch.setattr(BoxCaptionTrainer, "_save", lambda self, *given: calls.append(("own", given)))
    monkeypatch.setattr(Trainer, "save_model", lambda self, *given: calls.append(("gathered", given)))
    trainer.save_model("here")
    assert calls == [("own", ("here",)) if stage < 3 else ("gathered", ("here", False))]


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
