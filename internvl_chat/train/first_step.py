"""What is looked at before a run spends hours: that positions are exact, and that the first loss is a number."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from internvl_chat.contracts import UserError

_ROTARY_FREQUENCIES = "inv_freq"


def check_rotary(model: nn.Module) -> None:
    """See to it that rotary frequencies kept their precision: rounded, positions drift apart over long prompts.

    Raises:
        UserError: a library cast them together with the weights, as DeepSpeed 0.19.0 does.
    """
    for name, buffer in model.named_buffers():
        if name.endswith(_ROTARY_FREQUENCIES) and buffer.dtype != torch.float32:
            raise UserError(
                f"{name} is {buffer.dtype}: expected torch.float32, the model would train with wrong positions; "
                "install the versions of requirements/internvl_chat.txt (deepspeed>=0.19.8)"
            )


def check_first_loss(losses: torch.Tensor) -> None:
    """See to it that training starts from a number.

    Args:
        losses: [ranks], of each rank's first pass.
    Raises:
        UserError: one of them is none.
    """
    broken = (~losses.isfinite()).nonzero()[:, 0].tolist()
    if broken:
        raise UserError(
            f"the first loss is {losses[broken[0]].item()} on rank {broken[0]} of {len(losses)}: expected a number; "
            "are the base's weights whole, and DeepSpeed and torch those of requirements/internvl_chat.txt?"
        )


class ExactPositions(TrainerCallback):
    """Checks the model as DeepSpeed left it."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        check_rotary(kwargs["model"])
