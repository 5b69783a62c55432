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
from internvl_chat.families import FAMILIES, family_of
from internvl_chat.model.checkpoint import load_captioner
from internvl_chat.model.conversion.weight_files import open_safetensors
from internvl_chat.vision import Vision, moved

CASE_NAME, CASE_CHECKPOINT_NAME = "case.safetensors", "checkpoint"
CASE_TENSORS = (
    "input_ids",
    "labels",
    "expected_visual_tokens",
    "expected_logits",
    "expected_loss",
    "expected_greedy_ids",
)


@dataclass(frozen=True)
class Differences:
    """Largest differences by name, and whether greedy decoding gives the same tokens; None where none are recorded."""

    largest: Mapping[str, float]
    greedy_equal: bool | None
    tolerance: float = 0.0

    def hold(self) -> bool:
        """Whether the tokens, if any, are equal and every difference is at most `tolerance`; a NaN never is."""
        tolerance = self.tolerance
        return self.greedy_equal is not False and all(value <= tolerance for value in self.largest.values())


def check_case(folder: Path) -> Differences:
    """Compute in fp32 what a recorded case holds, from its checkpoint, and compare.

    Args:
        folder: `checkpoint/` and `case.safetensors`: input_ids and labels [1, L], what the family's tower is shown, and
            the expected results; or a case in a form of its family's own.
    Raises:
        UserError: the folder is no case, or its checkpoint cannot be loaded.
    """
    for family in FAMILIES:
        if family.recorded is not None and family.recorded.is_case(folder):
            return Differences(family.recorded.check_recorded(folder), None, family.parts.CASE_TOLERANCE)
    case = {name: tensor.read() for name, tensor in open_safetensors(folder / CASE_NAME).items()}
    absent = [name for name in CASE_TENSORS if name not in case]
    if absent:
        raise UserError(f"{folder / CASE_NAME}: lacks {', '.join(absent)}")
    model: Any = load_captioner(folder / CASE_CHECKPOINT_NAME, dtype=torch.float32)
    family = family_of(model.config)
    ids, vision = family.original.case_inputs(case, model.config)
    places = torch.isin(ids, torch.tensor(family.parts.placeholder_ids(model.config)))
    expected_ids, text = case["expected_greedy_ids"], model.config.text_config
    prompt = ids[:, : _prompt_length(case["labels"])]
    with torch.inference_mode():
        embeds, position_ids = model.model.embed_prompt(ids, vision)
        result = model(input_ids=ids, vision=vision, labels=case["labels"])
        greedy_ids = model.generate(
            prompt,
            vision=vision,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=expected_ids.shape[1],
            do_sample=False,
            eos_token_id=text.eos_token_id,
            pad_token_id=text.pad_token_id or 0,
        )[:, prompt.shape[1] :]
    visual, expected_visual = embeds[places], case["expected_visual_tokens"]
    computed = {"logits": result.logits, "loss": result.loss.reshape(case["expected_loss"].shape)}
    computed["visual_tokens"] = visual.reshape(expected_visual.shape)
    if "expected_position_ids" in case:
        computed["position_ids"] = position_ids
    padded = pad_sequence([expected_ids[0], greedy_ids[0]], batch_first=True, padding_value=text.pad_token_id or 0)
    return Differences(
        {name: _relative_difference(tensor, case[f"expected_{name}"]) for name, tensor in computed.items()},
        torch.equal(padded[0], padded[1]),
        family.parts.CASE_TOLERANCE,
    )


def _prompt_length(labels: torch.Tensor) -> int:
    return int((labels[0] != IGNORE_INDEX).nonzero()[0])


def _relative_difference(computed: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest expected value where that is above 1.

    Sums in another order differ by so much: the original's own fp32 results are as far from exact ones.
    """
    return _largest_difference(computed, expected) / max(1.0, expected.abs().max().item())


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


def answer(model: Any, input_ids: torch.Tensor, vision: Vision, max_new_tokens: int) -> Answer:
    """Ask a model.

    Args:
        input_ids: [1, L].
    """
    with torch.inference_mode():
        shown = moved(vision, model.device, model.dtype)
        logits = model(input_ids=input_ids, vision=shown).logits.float()
        mask = torch.ones_like(input_ids)
        ids = model.generate(
            input_ids, vision=shown, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False
        )
    return Answer(logits, ids[0, mask.shape[1] :])
