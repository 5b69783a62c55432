"""What the recipes of the tiny bases share: their tokenizer, what their patches show, and heads that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import Trainer

from internvl_chat.boxes import thousandths_from_pixels
from internvl_chat.constants import IGNORE_INDEX
from internvl_chat.data.synthetic.shapes import COLOURS, HEIGHT_PX, MOTIONS, SHAPES, WIDTH_PX, Clip, MovingShape

# The usual 0.02 belongs to layers a thousand wide; here it would leave attention nearly uniform for thousands of steps.
INITIALIZER_RANGE = 0.08


def byte_pairs(corpus: Sequence[str], vocabulary: int, special_tokens: Sequence[str]) -> Tokenizer:
    """A byte-level BPE over a text, digits one by one; the special tokens come first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d| ?\p{L}+| ?[^\s\p{L}\d]+|\s+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(special_tokens),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def looks_of(item: MovingShape) -> int:
    """The number of a coloured shape, from 0."""
    return list(COLOURS).index(item.colour) * len(SHAPES) + SHAPES.index(item.shape)


def motion_of(item: MovingShape) -> int:
    """The number of an object's motion, from 0."""
    return list(MOTIONS).index(item.motion)


def grid_labels(clip: Clip, frame_indices: np.ndarray, grid: int, kind_of: Callable[[MovingShape], int]) -> np.ndarray:
    """[F, grid * grid]: 0 where a cell's centre shows the ground, otherwise 1 + the kind of the object there."""
    labels = np.zeros((len(frame_indices), grid, grid), dtype=np.int64)
    centres = (np.arange(grid) + 0.5) / grid * 1000
    for item in clip.objects:
        kind = 1 + kind_of(item)
        boxes = thousandths_from_pixels(item.boxes_px[frame_indices], WIDTH_PX, HEIGHT_PX)
        inside_x = (centres >= boxes[:, :1]) & (centres <= boxes[:, 2:3])
        inside_y = (centres >= boxes[:, 1:2]) & (centres <= boxes[:, 3:4])
        labels[inside_y[:, :, None] & inside_x[:, None, :]] = kind
    return labels.reshape(len(frame_indices), -1)


def example(
    encoded: Any, pixels: torch.Tensor, clip: Clip, frame_indices: np.ndarray, grid: int
) -> dict[str, torch.Tensor]:
    """What a base is given of a clip: its text, pixels [F, 3, S, S], and what its `grid` x `grid` patches show."""
    return {
        "input_ids": torch.tensor(encoded.input_ids),
        "labels": torch.tensor(encoded.labels),
        "pixel_values": pixels,
        "patch_labels": torch.from_numpy(grid_labels(clip, frame_indices, grid, looks_of)),
        "motion_labels": torch.from_numpy(grid_labels(clip, frame_indices, grid // 2, motion_of)),
    }


def collate(samples: Sequence[dict[str, torch.Tensor]], pad_id: int) -> dict[str, torch.Tensor]:
    """Right-pad the text; concatenate the frames."""
    pad = nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad([s["input_ids"] for s in samples], batch_first=True, padding_value=pad_id),
        "labels": pad([s["labels"] for s in samples], batch_first=True, padding_value=IGNORE_INDEX),
        **{key: torch.cat([s[key] for s in samples]) for key in ("pixel_values", "patch_labels", "motion_labels")},
    }


def heads_of(config: Any) -> nn.ModuleDict:
    """`looks` for what a patch shows, `motion` for how it moves; 0 is the ground. They are thrown away afterwards."""
    return nn.ModuleDict(
        {
            "looks": nn.Linear(config.vision_config.hidden_size, 1 + len(COLOURS) * len(SHAPES)),
            "motion": nn.Linear(config.text_config.hidden_size, 1 + len(MOTIONS)),
        }
    )


class HeadsTrainer(Trainer):
    """Adds to the next token's loss what the patches show and, half-way up the language model, how it moves."""

    def __init__(self, *args: Any, heads: nn.ModuleDict, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heads = heads

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(*args, **kwargs)
        optimizer.add_param_group({"params": list(self.heads.parameters()), "weight_decay": 0.0})
        return optimizer

    def losses_of(self, model: Any, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The losses of a batch by name; what is trained is their sum."""
        raise NotImplementedError

    def head_losses(
        self, patches: torch.Tensor, patch_labels: torch.Tensor, tokens: torch.Tensor, motion_labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """What the heads say of patches and of the language model's tokens, [..., width], against labels."""
        heads = {"patch_loss": ("looks", patches, patch_labels), "motion_loss": ("motion", tokens, motion_labels)}
        return {
            name: nn.functional.cross_entropy(self.heads[head](given).flatten(0, -2), labels.flatten())
            for name, (head, given, labels) in heads.items()
        }

    def compute_loss(self, model: Any, inputs: dict, return_outputs: bool = False, **kwargs: Any) -> Any:
        losses = self.losses_of(model, inputs)
        if self.state.global_step % self.args.logging_steps == 0:
            self.log({name: loss.item() for name, loss in losses.items()})
        return torch.stack(list(losses.values())).sum()
