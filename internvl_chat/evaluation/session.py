"""A checkpoint opened for prediction: model, tokenizer, encoder and the dataset it is asked about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import UserError
from internvl_chat.data.annotations import DatasetEntry, load_meta, read_samples
from internvl_chat.data.encoder import PROMPT_CONFIG_NAME, PromptConfig, SampleEncoder
from internvl_chat.data.prompt import PromptForm
from internvl_chat.data.tokenizer import load_tokenizer
from internvl_chat.data.video import VideoBackend
from internvl_chat.evaluation.predict import newest_checkpoint
from internvl_chat.model.checkpoint import load_captioner


class SessionArguments(Protocol):
    """The flags that name a checkpoint and a dataset."""

    checkpoint_path: Path | None
    work_dirs: Path
    model_name_or_path: str | None
    meta_path: Path
    prompt_form: str | None
    video_backend: VideoBackend


@dataclass(frozen=True)
class PredictionSession:
    """`ask` gives the question about an object of a name, as the dataset's annotations ask it."""

    checkpoint: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    encoder: SampleEncoder
    entry: DatasetEntry
    ask: Callable[[str], str]


def question_of(entry: DatasetEntry) -> Callable[[str], str]:
    """How the annotations ask about an object: in one of IntentVCNet's forms, or always in the user's own words."""
    text = next(turn.text for turn in read_samples(entry)[0].turns if turn.speaker == "human")
    own_words = text.replace(VIDEO_PLACEHOLDER, "").strip()
    form = PromptForm.of(own_words)
    if form is PromptForm.TEXT_ONLY:
        return lambda _name: own_words
    return form.question


def open_session(args: SessionArguments) -> PredictionSession:
    """Load what `args` names; files are checked before weights are read.

    Raises:
        UserError: no checkpoint, or one that does not say how it was prompted; or the meta JSON cannot be used.
    """
    checkpoint = args.checkpoint_path or newest_checkpoint(args.work_dirs)
    if checkpoint is None:
        raise UserError(f"no checkpoint found under {args.work_dirs}: train one, or give --checkpoint_path")
    if not checkpoint.is_dir():
        raise UserError(f"--checkpoint_path {checkpoint}: is no folder")
    if not (checkpoint / PROMPT_CONFIG_NAME).is_file():
        raise UserError(f"{checkpoint}: holds no {PROMPT_CONFIG_NAME}; is it a checkpoint of this training script?")
    entries = load_meta(args.meta_path)
    if len(entries) > 1:
        raise UserError(f"{args.meta_path}: holds {len(entries)} datasets, expected the one to predict")
    entry = entries[0]
    ask = PromptForm(args.prompt_form).question if args.prompt_form else question_of(entry)
    on_gpu = torch.cuda.is_available()
    model = load_captioner(
        checkpoint, base_path=args.model_name_or_path, dtype=torch.bfloat16 if on_gpu else torch.float32
    )
    if on_gpu:
        model.to("cuda")
    tokenizer = load_tokenizer(checkpoint)
    encoder = SampleEncoder(tokenizer, PromptConfig.load(checkpoint), args.video_backend)
    return PredictionSession(checkpoint, model, tokenizer, encoder, entry, ask)
