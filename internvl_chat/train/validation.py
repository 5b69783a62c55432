"""Captions of held-out videos while training: scored by the metrics that count, not by a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from internvl_chat.contracts import Sample, UserError


def hold_out(samples: Sequence[Sample], num_videos: int, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Training samples and those of `num_videos` held-out videos; no video is on both sides.

    Raises:
        UserError: that leaves no video to train on.
    """
    videos = sorted({str(sample.video_path) for sample in samples if sample.video_path is not None})
    if num_videos >= len(videos):
        raise UserError(f"--eval_videos {num_videos}: the data has {len(videos)} videos, and some must be trained on")
    held: set[str] = set(np.random.default_rng(seed).choice(videos, num_videos, replace=False).tolist())
    parts: tuple[list[Sample], list[Sample]] = ([], [])
    for sample in samples:
        parts[sample.video_path is not None and str(sample.video_path) in held].append(sample)
    return parts


@dataclass(frozen=True)
class Validation:
    """What is asked of the model at an evaluation, and how its answers are scored.

    Args:
        samples: prompts, each without its answer; their ids differ.
        references: id -> the answers that the data has.
        caption: captions samples in order with a model.
        score: metrics of id -> caption against the references.
    """

    samples: Sequence[Sample]
    references: Mapping[str, Sequence[str]]
    caption: Callable[[nn.Module, Sequence[Sample]], Iterable[str]]
    score: Callable[[Mapping[str, str], Mapping[str, Sequence[str]]], Mapping[str, float]]

    @staticmethod
    def of(
        groups: Iterable[Sequence[Sample]],
        caption: Callable[[nn.Module, Sequence[Sample]], Iterable[str]],
        score: Callable[[Mapping[str, str], Mapping[str, Sequence[str]]], Mapping[str, float]],
    ) -> Validation:
        """From samples that were grouped by prompt: every answer of a group is a reference."""
        samples, references = [], {}
        for group in groups:
            # Ids may come twice in a mix of datasets; a line of a file does not.
            prompt = replace(group[0], id=group[0].source, turns=group[0].turns[:-1])
            samples.append(prompt)
            references[prompt.id] = [sample.turns[-1].text for sample in group]
        return Validation(samples, references, caption, score)

    def run(self, model: nn.Module, accelerator: Accelerator) -> dict[str, float]:
        """Caption with all ranks, score on the first; every rank gets the metrics.

        Every rank captions the same number of samples, for under ZeRO-3 all of them take part in every layer.
        """
        world = accelerator.num_processes
        per_rank = -(-len(self.samples) // world)
        start = accelerator.process_index * per_rank
        mine = [self.samples[i % len(self.samples)] for i in range(start, start + per_rank)]
        was_training = model.training
        model.eval()
        captions = list(zip((sample.id for sample in mine), self.caption(model, mine), strict=True))
        model.train(was_training)
        predictions = dict(gather_object(captions))
        metrics = [dict(self.score(predictions, self.references)) if accelerator.is_main_process else {}]
        return broadcast_object_list(metrics)[0]
