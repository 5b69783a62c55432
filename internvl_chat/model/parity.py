"""Whether two ways to the same model agree: against recorded results, and against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from internvl_chat.constants import IGNORE_INDEX
from internvl_chat.contracts import UserError
from internvl_chat.model.checkpoint import load_captioner
from internvl_chat.model.conversion.weight_files import open_safetensors

CASE_NAME, CASE_CHECKPOINT_NAME = "case.safetensors", "checkpoint"
CASE_TENSORS = (
    "pixel_values",
    "input_ids",
    "labels",
    "expected_visual_tokens",
    "expected_logits",
    "expected_loss",
    "expected_greedy_ids",
)


@dataclass(frozen=True)
class Differences:
    """Largest absolute differences by name, and whether greedy decoding gives the same tokens."""

    largest: Mapping[str, float]
    greedy_equal: bool

    def hold(self, tolerance: float) -> bool:
        """Whether the tokens are equal and every difference is at most `tolerance`; a NaN never is."""
        return self.greedy_equal and all(value <= tolerance for value in self.largest.values())


def check_case(folder: Path) -> Differences:
    """Compute in fp32 what a recorded case holds, from its checkpoint, and compare.

    Args:
        folder: `checkpoint/` and `case.safetensors`: pixel_values [F, 3, S, S], input_ids and labels [1, L], bboxes
            [F, 4] where the model has box adapters, and the expected results.
    Raises:
        UserError: the folder is no case, or its checkpoint cannot be loaded.
    """
    case = {name: tensor.read() for name, tensor in open_safetensors(folder / CASE_NAME).items()}
    absent = [name for name in CASE_TENSORS if name not in case]
    if absent:
        raise UserError(f"{folder / CASE_NAME}: lacks {', '.join(absent)}")
    model = load_captioner(folder / CASE_CHECKPOINT_NAME, dtype=torch.float32)
    model.config.image_token_id = _image_token_id(case, model.config.image_token_id)
    boxes, expected_ids = case.get("bboxes"), case["expected_greedy_ids"]
    prompt = case["input_ids"][:, : _prompt_length(case["labels"])]
    text = model.config.text_config
    with torch.inference_mode():
        visual = model.model.get_image_features(case["pixel_values"], boxes=boxes, return_dict=True).pooler_output
        result = model(
            input_ids=case["input_ids"], pixel_values=case["pixel_values"], boxes=boxes, labels=case["labels"]
        )
        ids = model.generate(
            prompt,
            pixel_values=case["pixel_values"],
            boxes=boxes,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=expected_ids.shape[1],
            do_sample=False,
            eos_token_id=text.eos_token_id,
            pad_token_id=text.pad_token_id or 0,
        )[:, prompt.shape[1] :]
    padded = pad_sequence([expected_ids[0], ids[0]], batch_first=True, padding_value=text.pad_token_id or 0)
    return Differences(
        {
            "logits": _largest_difference(result.logits, case["expected_logits"]),
            "loss": _largest_difference(result.loss.reshape(1), case["expected_loss"].reshape(1)),
            "expected_visual_tokens": _largest_difference(visual, case["expected_visual_tokens"]),
        },
        greedy_equal=torch.equal(padded[0], padded[1]),
    )


def _image_token_id(case: Mapping[str, torch.Tensor], configured: int) -> int:
    """Cases speak token ids and bring no tokenizer: the image token is the one there is a visual token for."""
    count = case["expected_visual_tokens"].shape[:-1].numel()
    ids, counts = case["input_ids"].unique(return_counts=True)
    fitting = ids[counts == count].tolist()
    if not fitting:
        raise UserError(f"{CASE_NAME}: no token occurs {count} times in input_ids, once for each visual token")
    return configured if configured in fitting else int(fitting[0])


def _prompt_length(labels: torch.Tensor) -> int:
    return int((labels[0] != IGNORE_INDEX).nonzero()[0])


def _largest_difference(computed: torch.Tensor, expected: torch.Tensor) -> float:
    if computed.shape != expected.shape:
        raise UserError(f"computed {list(computed.shape)}, expected {list(expected.shape)}")
    return (computed.float() - expected.float()).abs().max().item()


@dataclass(frozen=True)
class Answer:
    """What a model says to a prompt: logits of the prompt's positions [1, L, V] in fp32, greedy continuation [T]."""

    logits: torch.Tensor
    greedy_ids: torch.Tensor

    def compare(self, other: Answer) -> Differences:
        same = torch.equal(self.greedy_ids, other.greedy_ids)
        return Differences({"logits": _largest_difference(self.logits, other.logits)}, greedy_equal=same)


def answer(model: Any, inputs: Mapping[str, torch.Tensor], max_new_tokens: int) -> Answer:
    """Ask a model.

    Args:
        inputs: input_ids [1, L], pixel_values [F, 3, S, S], boxes [F, 4].
    """
    with torch.inference_mode():
        inputs = {**inputs, "pixel_values": inputs["pixel_values"].to(model.dtype)}
        logits = model(**inputs).logits.float()
        mask = torch.ones_like(inputs["input_ids"])
        ids = model.generate(**inputs, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False)
    return Answer(logits, ids[0, mask.shape[1] :])
