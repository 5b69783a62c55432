"""Packed rows: several answers to one prompt, and several samples, in one forward pass.

Shape letters: L row positions, F frames, N supervised tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch

from internvl_chat.constants import IGNORE_INDEX
from internvl_chat.contracts import PackedFeatures, SharedPrefix
from internvl_chat.data.prompts.encoder import SamplePlan
from internvl_chat.vision import Vision

LossReduction = Literal["token", "sample", "square"]

# Packs that are filled together: enough for packs of equal cost, few enough to leave the order random.
_WINDOW_PACKS = 64


def supervised_weight(num_tokens: int, reduction: LossReduction) -> float:
    """What each of an answer's `num_tokens` supervised tokens counts; InternVL's `--loss_reduction`."""
    if reduction == "token" or num_tokens == 0:
        return 1.0
    return 1 / num_tokens if reduction == "sample" else num_tokens**-0.5


def pack_answers(plans: Sequence[SamplePlan], pixels: Vision, reduction: LossReduction) -> PackedFeatures:
    """One sample's answers in one row: the prompt once, then what each adds to it.

    What follows the last supervised token of an answer is left out: nothing depends on it.

    Args:
        plans: of samples that differ in their last answer alone, at the same frames.
        pixels: what is shown, the same for all.
    """
    # An answer of which nothing is learned adds nothing to the others.
    plans = [plan for plan in plans if any(label != IGNORE_INDEX for label in plan.labels[1:])] or plans[:1]
    learned = [[i for i, label in enumerate(plan.labels) if i and label != IGNORE_INDEX] for plan in plans]
    ends = [
        positions[-1] + 1 if positions else len(plan.labels) for positions, plan in zip(learned, plans, strict=True)
    ]
    prompt_length = ends[0]
    if len(plans) > 1:
        prompt_length = _common_length([plan.input_ids[: i[0]] for plan, i in zip(plans, learned, strict=True)])

    ids = plans[0].input_ids[:prompt_length]
    positions = list(_positions(plans[0], 0, prompt_length))
    target_positions, target_ids, weights = [], [], []
    for plan, supervised, end in zip(plans, learned, ends, strict=True):
        shift = len(ids) - prompt_length
        ids = ids + plan.input_ids[prompt_length:end]
        positions += _positions(plan, prompt_length, end)
        # A token is predicted where its predecessor stands; that of an answer's first token is the prompt's last.
        target_positions += [i - 1 if i <= prompt_length else i - 1 + shift for i in supervised]
        target_ids += [plan.labels[i] for i in supervised]
        weights += [supervised_weight(len(supervised), reduction)] * len(supervised)
    answer_lengths = tuple(end - prompt_length for end in ends) if len(plans) > 1 else ()
    return {
        "input_ids": torch.tensor(ids),
        "position_ids": torch.tensor(positions),
        "layout": (SharedPrefix(prompt_length, answer_lengths),),
        "target_positions": torch.tensor(target_positions, dtype=torch.int64),
        "target_ids": torch.tensor(target_ids, dtype=torch.int64),
        "loss_weights": torch.tensor(weights, dtype=torch.float32),
        "vision": {**pixels, **plans[0].tensors},
    }


def _positions(plan: SamplePlan, start: int, stop: int) -> Sequence[int]:
    return range(start, stop) if plan.position_ids is None else plan.position_ids[start:stop]


def _common_length(rows: Sequence[Sequence[int]]) -> int:
    length = min(map(len, rows))
    columns = np.array([row[:length] for row in rows])
    differs = (columns != columns[0]).any(axis=0)
    return int(differs.argmax()) if differs.any() else length


def fill_packs(
    tokens: Sequence[int], costs: Sequence[float], samples: Iterable[int], num_packs: int, max_tokens: int
) -> list[list[int]] | None:
    """Share samples out over packs of about equal cost, the most expensive first, each to the cheapest pack with room.

    Args:
        tokens, costs: of every sample.
        max_tokens: most tokens of a pack; a longer sample has one for itself.
    Returns:
        `num_packs` packs of sample numbers, none empty; None where they do not fit or do not suffice.
    """
    packs: list[list[int]] = [[] for _ in range(num_packs)]
    used, spent = [0] * num_packs, [0.0] * num_packs
    for sample in sorted(samples, key=lambda i: -costs[i]):
        open_packs = [p for p in range(num_packs) if not used[p] or used[p] + tokens[sample] <= max_tokens]
        if not open_packs:
            return None
        cheapest = min(open_packs, key=spent.__getitem__)
        packs[cheapest].append(sample)
        used[cheapest] += tokens[sample]
        spent[cheapest] += costs[sample]
    return packs if all(packs) else None


def plan_packs(
    tokens: Sequence[int],
    costs: Sequence[float],
    order: Sequence[int],
    num_packs: int,
    max_tokens: int,
    step_packs: int,
) -> list[list[int]] | None:
    """Cut the order of an epoch into `num_packs` packs; the packs of one optimizer step cost about the same.

    The order is cut into windows of some steps each, and each window filled by itself, so that which samples meet stays
    random.

    Args:
        order: the samples, shuffled.
        step_packs: packs of one optimizer step on all ranks; `num_packs` is a multiple.
    Returns:
        The packs in training order, or None where `num_packs` are too few or more than the samples can fill.
    """
    steps = num_packs // step_packs
    num_windows = max(1, steps * step_packs // _WINDOW_PACKS)
    packs: list[list[int]] = []
    ends = np.cumsum([len(part) for part in np.array_split(np.arange(steps), num_windows)])
    cumulative = np.cumsum([tokens[i] for i in order])
    start = 0
    for end in ends:
        # Windows get their share of the tokens, not of the samples, which differ in length.
        stop = len(order) if end == steps else int(np.searchsorted(cumulative, cumulative[-1] * end / steps))
        filled = fill_packs(tokens, costs, order[start:stop], int(end) * step_packs - len(packs), max_tokens)
        if filled is None:
            return None
        packs += filled
        start = stop
    return packs
