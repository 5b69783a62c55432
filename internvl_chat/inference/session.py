"""Checkpoints opened for prediction: what they are shown, how they are asked, and how they write captions in step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from internvl_chat.choices import VideoBackend
from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import UserError
from internvl_chat.data.prompts.encoder import PROMPT_CONFIG_NAME, PromptConfig, SampleEncoder
from internvl_chat.data.prompts.prompt_config import PromptSettings
from internvl_chat.data.prompts.tokenizer import load_tokenizer
from internvl_chat.data.prompts.wordings import WORDINGS, wording_named
from internvl_chat.data.records.annotations import DatasetEntry, load_meta, read_samples
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.ensemble import Ensemble, normalised_weights
from internvl_chat.inference.generation import Captioners, caption_ends
from internvl_chat.inference.predict import BatchLimits, Predictions, predict
from internvl_chat.inference.ranks import ALONE, Ranks
from internvl_chat.inference.requests import Ask, Viewpoint, question_sample
from internvl_chat.inference.weights import file_marks, load_weights
from internvl_chat.model.checkpoint import COMPLETION_MARK_NAME, is_complete, is_training_checkpoint, written_ns
from internvl_chat.model.loading import load_config


class SessionArguments(Protocol):
    """The flags that name checkpoints and a dataset."""

    model: Path | None
    ensemble: list[Path] | None
    weights: list[float] | None
    work_dirs: Path
    base: str | None
    meta: Path
    prompt_form: list[str] | None
    num_frames: list[int] | None
    video_backend: VideoBackend
    keep_lora: bool


@dataclass(frozen=True)
class PredictionSession:
    """Checkpoints that write captions in step, and the dataset they are asked about.

    `views` are the distinct ways in which they are shown a sample, `questions` how each view asks about an object of a
    name; `view_of` says which view is each checkpoint's.
    """

    checkpoints: tuple[Path, ...]
    weights: tuple[float, ...]
    view_of: tuple[int, ...]
    views: tuple[Viewpoint, ...]
    questions: tuple[Callable[[str], str], ...]
    entry: DatasetEntry
    base_path: str | None
    ranks: Ranks
    keep_lora: bool = False

    @property
    def name(self) -> str:
        """What results are called after: the folders' names."""
        return "+".join(checkpoint.name for checkpoint in self.checkpoints)

    @property
    def results_folder(self) -> Path:
        """Where their results belong if nobody says otherwise: the same for the same checkpoints."""
        return Path("results") / "+".join("-".join(path.resolve().parts[1:][-2:]) for path in self.checkpoints)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.views[0].encoder.tokenizer

    def ask(self, video_id: str) -> Ask:
        """The dataset's question about one of its videos."""
        return Ask(video_id, tuple(question_sample(self.entry, video_id, question) for question in self.questions))

    def predict(self, asks: Sequence[Ask], decoding: Decoding, limits: BatchLimits, folder: Path) -> Predictions:
        """Candidates of the asks, kept in `folder` as they are finished; see `predict`."""
        return predict(
            asks,
            self.views,
            lambda: self.load(decoding),
            decoding=decoding,
            identity=self.identity(),
            folder=folder,
            limits=limits.beside([load_config(checkpoint) for checkpoint in self.checkpoints], self.ranks),
            ranks=self.ranks,
        )

    def identity(self) -> Any:
        """What tells these models from others: their files as they lie there, weights and precision."""
        members = [
            [weight, self.view_of[number], file_marks(checkpoint)]
            for number, (checkpoint, weight) in enumerate(zip(self.checkpoints, self.weights, strict=True))
        ]
        apart = ["LoRA apart"] if self.keep_lora else []
        return [members, self.base_path, str(self.ranks.dtype), *apart]

    def load(self, decoding: Decoding) -> Captioners:
        """The models on this rank's device.

        Raises:
            UserError: a checkpoint or its base cannot be used.
        """
        models = [
            load_weights(checkpoint, self.base_path, self.ranks, self.keep_lora) for checkpoint in self.checkpoints
        ]
        end_ids = caption_ends(self.views[0].encoder)
        return Captioners(Ensemble(models, self.weights), self.view_of, self.tokenizer, end_ids, decoding)


def question_of(entry: DatasetEntry) -> Callable[[str], str]:
    """How the annotations ask about an object: in a published wording, or always in the user's own words.

    Raises:
        UserError: they ask in several words of the user's own.
    """
    asked = [next(turn for turn in sample.turns if turn.speaker == "human") for sample in read_samples(entry)]
    if asked[0].controls:
        return WORDINGS[asked[0].controls].asks
    questions = list(dict.fromkeys(turn.text.replace(VIDEO_PLACEHOLDER, "").strip() for turn in asked))
    if len(questions) > 1:
        raise UserError(
            f"{entry.annotation}: asks {len(questions)} different questions ({questions[0]!r}, {questions[1]!r}, ...): "
            "give --prompt_form to say which is meant"
        )
    return lambda _name: questions[0]


def newest_checkpoint(work_dirs: Path) -> Path | None:
    """The complete training checkpoint below `work_dirs` that was written last, or None."""
    folders = [mark.parent for mark in work_dirs.glob(f"**/{COMPLETION_MARK_NAME}")]
    complete = [folder for folder in folders if is_training_checkpoint(folder) and is_complete(folder)]
    return max(complete, key=written_ns, default=None)


def _chosen_checkpoints(args: SessionArguments) -> list[Path]:
    if args.ensemble and args.model:
        raise UserError("--ensemble and --model: give one of them")
    if args.weights and not args.ensemble:
        raise UserError("--weights: belong to --ensemble")
    newest = None if args.ensemble or args.model else newest_checkpoint(args.work_dirs)
    chosen = args.ensemble or [path for path in (args.model, newest) if path]
    if not chosen:
        raise UserError(f"no checkpoint found under {args.work_dirs}: train one, or give --model")
    for checkpoint in chosen:
        if not checkpoint.is_dir():
            flag = "--ensemble" if args.ensemble else "--model"
            raise UserError(f"{flag} {checkpoint}: is no folder")
        if not (checkpoint / PROMPT_CONFIG_NAME).is_file():
            raise UserError(f"{checkpoint}: holds no {PROMPT_CONFIG_NAME}; is it a checkpoint of this training script?")
    return chosen


def _one_each(flag: str, values: Sequence[Any], count: int) -> list[Any]:
    if len(values) not in (1, count):
        raise UserError(f"{flag} has {len(values)} values for {count} checkpoints: give one for all, or one for each")
    return list(values) * (count if len(values) == 1 else 1)


def open_session(args: SessionArguments, ranks: Ranks = ALONE) -> PredictionSession:
    """Check what `args` names; no weights are read yet.

    Raises:
        UserError: no checkpoint, one that does not say how it was prompted, checkpoints that do not go together, or a
            meta JSON that cannot be used.
    """
    chosen = _chosen_checkpoints(args)
    if ranks.is_first and not (args.model or args.ensemble):
        sys.stderr.write(f"asking {chosen[0]}, the newest checkpoint under {args.work_dirs}: --model asks another\n")
    weights = normalised_weights(len(chosen), args.weights)
    entries = load_meta(args.meta)
    if len(entries) > 1:
        raise UserError(f"{args.meta}: holds {len(entries)} datasets, expected the one to predict")
    frames = _one_each("--num_frames", args.num_frames or [None], len(chosen))
    forms = _one_each("--prompt_form", args.prompt_form or [None], len(chosen))
    seen: dict[tuple[PromptConfig, int, str | None], int] = {}
    views: list[Viewpoint] = []
    view_of = []
    for checkpoint, num_frames, form in zip(chosen, frames, forms, strict=True):
        trained = PromptConfig.load(checkpoint)
        # What training showed of other videos does not make another view.
        config = replace(
            trained, min_num_frame=PromptSettings.min_num_frame, max_num_frame=PromptSettings.max_num_frame
        )
        key = (config, num_frames or trained.num_frames, form)
        tokenizer = load_tokenizer(checkpoint)
        if views and tokenizer.get_vocab() != views[0].encoder.tokenizer.get_vocab():
            raise UserError(f"{checkpoint}: has another vocabulary than {chosen[0]}; they cannot decode in step")
        if key not in seen:
            seen[key] = len(views)
            views.append(Viewpoint(SampleEncoder(tokenizer, key[0], args.video_backend), key[1]))
        view_of.append(seen[key])
    own = question_of(entries[0]) if None in forms else None
    questions = [wording_named(form).asks if form else own for _, _, form in seen]
    return PredictionSession(
        tuple(chosen),
        tuple(weights),
        tuple(view_of),
        tuple(views),
        tuple(question for question in questions if question),
        entries[0],
        args.base,
        ranks,
        args.keep_lora,
    )
