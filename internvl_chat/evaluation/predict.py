"""Captions from a model: which ids, which question, which boxes, and the generation itself."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import Features, Sample, TrackFile, Turn
from internvl_chat.data.annotations import DatasetEntry
from internvl_chat.data.collator import Collator
from internvl_chat.data.encoder import SampleEncoder
from internvl_chat.data.layout import boxes_path_of, category_of, object_name_of, video_path_of
from internvl_chat.model.checkpoint import COMPLETION_MARK_NAME, is_training_checkpoint


@dataclass(frozen=True)
class GenerationSettings:
    """How captions are decoded; `temperature` 0 is greedy or, with `num_beams` above 1, beam search."""

    num_frames: int = 32
    num_beams: int = 1
    max_new_tokens: int = 128
    temperature: float = 0.0
    batch_size: int = 1
    num_workers: int = 1

    @classmethod
    def from_arguments(cls, args: Namespace) -> GenerationSettings:
        """The settings among an entry's parsed flags, which have the same names."""
        return cls(**{field.name: getattr(args, field.name) for field in fields(cls)})


def question_sample(entry: DatasetEntry, video_id: str, ask: Callable[[str], str]) -> Sample:
    """What is asked about a video of `entry`: the question alone, boxes from beside the video.

    Args:
        ask: gives the question about an object of this name, without the video placeholder.
    """
    name = object_name_of(category_of(video_id), entry.object_names)
    video_path = video_path_of(entry.root, video_id)
    question = Turn("human", f"{VIDEO_PLACEHOLDER}\n{ask(name)}")
    track = TrackFile(name, boxes_path_of(video_path))
    return Sample(video_id, (question,), str(video_path), video_path=video_path, tracks=(track,))


def with_boxes_of(sample: Sample, other: Sample) -> Sample:
    """The same clip and question with the other's tracks, under the sample's names: nothing but the boxes differs."""
    tracks = tuple(replace(theirs, name=own.name) for own, theirs in zip(sample.tracks, other.tracks, strict=True))
    return replace(sample, tracks=tracks)


class _Prompts(Dataset[Features]):
    def __init__(self, samples: Sequence[Sample], encoder: SampleEncoder, num_frames: int) -> None:
        self.samples, self.encoder, self.num_frames = samples, encoder, num_frames

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Features:
        sample = self.samples[index]
        return self.encoder(sample, self.encoder.choose_frames(sample, self.num_frames, "centre"))


def generate_captions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoder: SampleEncoder,
    samples: Sequence[Sample],
    settings: GenerationSettings,
) -> Iterator[str]:
    """The caption of each sample, in order.

    Raises:
        UserError: a video or its boxes cannot be used.
    """
    loader: DataLoader[Features] = DataLoader(
        _Prompts(samples, encoder, settings.num_frames),
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        collate_fn=Collator(tokenizer.pad_token_id, padding_side="left"),
    )
    # The chat's own end mark, whatever the base's generation settings say.
    end_ids = {tokenizer.convert_tokens_to_ids(encoder.template.separator.strip()), tokenizer.eos_token_id} - {None}
    sampling = (
        {"do_sample": True, "temperature": settings.temperature} if settings.temperature else {"do_sample": False}
    )
    for batch in loader:
        with torch.inference_mode():
            ids = model.generate(
                input_ids=batch["input_ids"].to(model.device),
                attention_mask=batch["attention_mask"].to(model.device),
                pixel_values=batch["pixel_values"].to(model.device, model.dtype),
                boxes=batch["boxes"].to(model.device),
                num_beams=settings.num_beams,
                max_new_tokens=settings.max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=sorted(end_ids),
                **sampling,
            )
        yield from (text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True))


def newest_checkpoint(work_dirs: Path) -> Path | None:
    """The complete training checkpoint below `work_dirs` that was written last, or None."""
    marks = [mark for mark in work_dirs.glob(f"**/{COMPLETION_MARK_NAME}") if is_training_checkpoint(mark.parent)]
    newest = max(marks, key=lambda mark: mark.stat().st_mtime, default=None)
    return newest.parent if newest else None
