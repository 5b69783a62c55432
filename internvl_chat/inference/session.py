"""Models opened for prediction: what they are shown, how they are asked, and how they write captions in step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from internvl_chat.choices import VideoBackend
from internvl_chat.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.prompts.prompt_config import PROMPT_CONFIG_NAME, PromptConfig, PromptSettings
from internvl_chat.data.prompts.wordings import WORDINGS, question_turn, wording_named
from internvl_chat.data.records.annotations import DatasetEntry, load_meta, read_samples
from internvl_chat.data.records.intentvc import video_path_of
from internvl_chat.data.records.record_questions import RecordQuestion, question_sample, read_questions
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.ensemble import Ensemble, normalised_weights
from internvl_chat.inference.generation import Captioners, caption_ends
from internvl_chat.inference.handle import ModelHandle, open_model
from internvl_chat.inference.predict import BatchLimits, Predictions, predict
from internvl_chat.inference.ranks import ALONE, Ranks
from internvl_chat.inference.requests import Ask, Viewpoint
from internvl_chat.inference.weights import file_marks
from internvl_chat.model.checkpoint import COMPLETION_MARK_NAME, is_complete, is_training_checkpoint, written_ns
from internvl_chat.model.loading import load_config
from internvl_chat.scoring.predictions import run_facts


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
    """Models that write captions in step, and the datasets they are asked about.

    `views` are the distinct ways in which they are shown a sample, and `forms` the words of `--prompt_form` by which
    each view asks, None where it asks as the records do; `view_of` says which view is each model's.
    """

    members: tuple[ModelHandle, ...]
    weights: tuple[float, ...]
    view_of: tuple[int, ...]
    views: tuple[Viewpoint, ...]
    forms: tuple[str | None, ...]
    entries: tuple[DatasetEntry, ...]

    @classmethod
    def alone(cls, member: ModelHandle, num_frames: int | None = None) -> PredictionSession:
        """One model without a dataset, for asks that are made elsewhere.

        Args:
            num_frames: shown of a video; None is what training showed.
        """
        view = Viewpoint(member.encoder, num_frames or member.encoder.config.num_frames)
        return cls((member,), (1.0,), (0,), (view,), (None,), ())

    @property
    def ranks(self) -> Ranks:
        return self.members[0].ranks

    @property
    def root(self) -> Path:
        """The root of the dataset; of several, the first one's."""
        return self.entries[0].root

    @property
    def name(self) -> str:
        """What results are called after: the folders' names."""
        return "+".join(member.folder.name for member in self.members)

    @property
    def results_folder(self) -> Path:
        """Where their results belong if nobody says otherwise: the same for the same checkpoints."""
        folders = ("-".join(member.folder.resolve().parts[1:][-2:]) for member in self.members)
        return Path("results") / "+".join(folders)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.views[0].encoder.tokenizer

    def questions(self, wanted: Collection[str] | None = None) -> dict[str, RecordQuestion]:
        """What the records ask, each question once by its id; see `read_questions`."""
        return read_questions(self.entries, wanted)

    def asks(self, ids: Sequence[str]) -> list[Ask]:
        """The questions of these ids: a record's own, and the challenge's layout where no record has the id.

        Raises:
            UserError: none of them is either.
        """
        of_records = self.questions(set(ids))
        if not of_records and ids and not any(video_path_of(self.root, i).is_file() for i in ids):
            raise UserError(
                f"none of the {len(ids)} ids is that of a record, nor of a video such as "
                f"{video_path_of(self.root, ids[0])}: are they of this --meta? Without --ids every record is asked"
            )
        in_layout = iter(self.asks_in_layout([i for i in ids if i not in of_records]))
        return [self.ask_of(of_records[i].sample) if i in of_records else next(in_layout) for i in ids]

    def ask_of(self, question: Sample) -> Ask:
        """A record's question, in the words of each view."""
        return Ask(question.id, tuple(_asked_as(form, question) for form in self.forms))

    def asks_in_layout(self, ids: Sequence[str]) -> list[Ask]:
        """The dataset's question about videos that lie as the challenge's do.

        Raises:
            UserError: the records, whose question it is, ask in several words of the user's own.
        """
        if not ids:
            return []
        entry = self.entries[0]
        own = question_of(entry) if None in self.forms else None
        wordings = [wording_named(form).asks if form else own for form in self.forms]
        return [Ask(i, tuple(question_sample(entry, i, asks) for asks in wordings if asks)) for i in ids]

    def predict(
        self,
        asks: Sequence[Ask],
        decoding: Decoding,
        limits: BatchLimits,
        folder: Path,
        *,
        keep_tags: bool = False,
    ) -> Predictions:
        """Candidates of the asks, kept in `folder` as they are finished; see `predict`.

        Args:
            keep_tags: leave the tags of boxes in the answers.
        """
        return predict(
            asks,
            self.views,
            lambda: self.load(decoding, keep_tags),
            decoding=decoding,
            identity=[*self.identity(), *(["tags kept"] if keep_tags else [])],
            folder=folder,
            limits=limits.beside([load_config(member.folder) for member in self.members], self.ranks),
            ranks=self.ranks,
        )

    def identity(self) -> list[Any]:
        """What tells these models from others: their files as they lie there, weights and precision."""
        members = [
            [weight, self.view_of[number], file_marks(member.folder)]
            for number, (member, weight) in enumerate(zip(self.members, self.weights, strict=True))
        ]
        first = self.members[0]
        apart = ["LoRA apart"] if first.keep_lora else []
        return [members, first.base_path, str(self.ranks.dtype), *apart]

    def load(self, decoding: Decoding, keep_tags: bool = False) -> Captioners:
        """The models on this rank's device.

        Raises:
            UserError: a checkpoint or its base cannot be used.
        """
        models = [member.load() for member in self.members]
        end_ids = caption_ends(self.views[0].encoder)
        return Captioners(Ensemble(models, self.weights), self.view_of, self.tokenizer, end_ids, decoding, keep_tags)

    def facts(self, data: Path, decoding: Decoding) -> dict[str, Any]:
        """How predictions of this session are made, for the file beside them."""
        frames = [self.views[view].num_frames for view in self.view_of]
        model = " + ".join(str(member.folder) for member in self.members)
        choices = [view.encoder.config.frame_choice or "evenly" for view in self.views]
        facts = run_facts(model, str(data), frames[0] if len(set(frames)) == 1 else frames, asdict(decoding))
        return {**facts, "frames_chosen": " or ".join(dict.fromkeys(choices))}


def _asked_as(form: str | None, question: Sample) -> Sample:
    """A question in its own words, or in those of a `--prompt_form` about its object."""
    if form is None:
        return question
    placeholders = [VIDEO_PLACEHOLDER] if question.video_path else [IMAGE_PLACEHOLDER] * len(question.image_paths)
    turn = question_turn("\n".join([*placeholders, wording_named(form).asks(question.object_name)]))
    return replace(question, turns=(turn,))


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
            "give --prompt_form to say which is meant, or leave --ids out to ask each record its own"
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
        if not any((checkpoint / name).is_file() for name in (PROMPT_CONFIG_NAME, "config.json")):
            inside = newest_checkpoint(checkpoint)
            hint = f"did you mean {inside}?" if inside else "is it a checkpoint of this training script, or a model?"
            raise UserError(f"{checkpoint}: holds no {PROMPT_CONFIG_NAME}; {hint}")
    return chosen


def _one_each(flag: str, values: Sequence[Any], count: int) -> list[Any]:
    if len(values) not in (1, count):
        raise UserError(f"{flag} has {len(values)} values for {count} checkpoints: give one for all, or one for each")
    return list(values) * (count if len(values) == 1 else 1)


def open_session(args: SessionArguments, ranks: Ranks = ALONE) -> PredictionSession:
    """Check what `args` names; no weights are read yet.

    Raises:
        UserError: no checkpoint, checkpoints that do not go together, or a meta JSON that cannot be used.
    """
    chosen = _chosen_checkpoints(args)
    if ranks.is_first and not (args.model or args.ensemble):
        sys.stderr.write(f"asking {chosen[0]}, the newest checkpoint under {args.work_dirs}: --model asks another\n")
    weights = normalised_weights(len(chosen), args.weights)
    entries = load_meta(args.meta)
    frames = _one_each("--num_frames", args.num_frames or [None], len(chosen))
    forms = _one_each("--prompt_form", args.prompt_form or [None], len(chosen))
    seen: dict[tuple[PromptConfig, int, str | None], int] = {}
    members: list[ModelHandle] = []
    views: list[Viewpoint] = []
    view_of = []
    for checkpoint, num_frames, form in zip(chosen, frames, forms, strict=True):
        member = open_model(
            checkpoint,
            base_path=args.base,
            video_backend=args.video_backend,
            ranks=ranks,
            keep_lora=args.keep_lora,
        )
        encoder = member.encoder
        if members and encoder.tokenizer.get_vocab() != members[0].encoder.tokenizer.get_vocab():
            raise UserError(f"{checkpoint}: has another vocabulary than {chosen[0]}; they cannot decode in step")
        # What training showed of other videos does not make another view.
        config = replace(
            encoder.config, min_num_frame=PromptSettings.min_num_frame, max_num_frame=PromptSettings.max_num_frame
        )
        key = (config, num_frames or encoder.config.num_frames, form)
        if key not in seen:
            seen[key] = len(views)
            views.append(Viewpoint(encoder, key[1]))
        members.append(member)
        view_of.append(seen[key])
    asked = tuple(form for _, _, form in seen)
    return PredictionSession(tuple(members), tuple(weights), tuple(view_of), tuple(views), asked, tuple(entries))
