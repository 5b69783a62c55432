"""What the rooms hand each other: Sample -> Features -> Batch, and the error a user can act on.

Shape letters: L text positions, F frames, S the tile's side, B samples of a batch, N supervised tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import torch


class UserError(ValueError):
    """Something the user gave cannot be used; the message says what, where, what was expected, and what to do.

    Entries print it on one line and exit with 1; anything else is a bug and keeps its traceback.
    """


@dataclass(frozen=True)
class Turn:
    """One message of a conversation: who says it, `system`, `human` or `gpt`, and its text."""

    speaker: str
    text: str


@dataclass(frozen=True)
class Sample:
    """One line of an annotation file with its paths resolved.

    `object_name` is how the prompt calls the object; `source` says where the line stands, for messages.
    """

    id: str
    video_path: Path
    boxes_path: Path
    object_name: str
    turns: tuple[Turn, ...]
    source: str


class Features(TypedDict):
    """One sample as tensors: input_ids [L] and labels [L] int64, pixel_values [F, 3, S, S], boxes [F, 4] int64."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    pixel_values: torch.Tensor
    boxes: torch.Tensor


@dataclass(frozen=True)
class SharedPrefix:
    """How one sample lies in a packed row: a prompt of `prompt_length` tokens, then its answers one after another.

    An answer continues the prompt as if it stood right behind it; answers do not see each other. Without answers it is
    one causal sequence.
    """

    prompt_length: int
    answer_lengths: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        return self.prompt_length + sum(self.answer_lengths)


class PackedFeatures(TypedDict):
    """Samples in one row to train on, or a single one: its collation with others keeps the form.

    input_ids and position_ids [L]; position_ids restart at each sample, and at each answer after the prompt. `layout`
    has one entry a sample. The token `target_ids[n]` is to be predicted at row position `target_positions[n]`, and
    counts `loss_weights[n]` (all [N]). pixel_values [F, 3, S, S] and boxes [F, 4] of all samples one after another.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    layout: tuple[SharedPrefix, ...]
    target_positions: torch.Tensor
    target_ids: torch.Tensor
    loss_weights: torch.Tensor
    pixel_values: torch.Tensor
    boxes: torch.Tensor


class Batch(TypedDict):
    """Samples side by side: text [B, L], padded; frames and boxes of all samples one after another."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    attention_mask: torch.Tensor
    pixel_values: torch.Tensor
    boxes: torch.Tensor
