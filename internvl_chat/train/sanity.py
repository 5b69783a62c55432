"""What a run is stopped for: positions that are not exact, and losses or weights that are no numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from internvl_chat.contracts import UserError

_ROTARY_FREQUENCIES = "inv_freq"
_ADVICE = (
    "the run has diverged and stops; lower --learning_rate or --max_grad_norm, or warm up longer; what {} holds from "
    "before is left as it was"
)


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


def check_loss(loss: float, step: int, checkpoints: str) -> None:
    """See to it that training goes on from a number: from anything else the weights will be none either.

    Args:
        loss: the mean since the last one that was looked at.
        checkpoints: where those written before lie.
    Raises:
        UserError: it is none.
    """
    if not math.isfinite(loss):
        raise UserError(f"the loss is {loss} at step {step}: {_ADVICE.format(checkpoints)}")


def check_weights(model: nn.Module, step: int, checkpoints: str) -> None:
    """See to it that what is saved is of use; under ZeRO-3 each rank looks at its own part.

    Raises:
        UserError: a trained weight is no number.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(_own_part(parameter).detach().isfinite().all()):
            raise UserError(f"{name} holds numbers that are none, at step {step}: {_ADVICE.format(checkpoints)}")


def _own_part(parameter: nn.Parameter) -> torch.Tensor:
    """What this rank holds of a parameter; under ZeRO-3 the last parts are filled up with whatever lay there."""
    part = getattr(parameter, "ds_tensor", None)
    if part is None:
        return parameter
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    left = int(getattr(parameter, "ds_numel", part.numel())) - rank * part.numel()
    return part.flatten()[: max(0, left)]


class ExactPositions(TrainerCallback):
    """Checks the model as DeepSpeed left it."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        check_rotary(kwargs["model"])
