"""A run of caption-videos: its folder, captions kept as they are finished, and the files at the end."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.data.prompts.frame_choice import FrameChoice
from internvl_chat.data.records.video_lists import ListedVideo
from internvl_chat.files import parse_json, read_json, read_text, split_records, write_json, write_jsonl
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.ensemble import Ensemble
from internvl_chat.inference.generation import Captioners, caption_ends
from internvl_chat.inference.handle import ModelHandle
from internvl_chat.inference.ledger import read_progress
from internvl_chat.inference.predict import BatchLimits, Predictions, plan_work, predict
from internvl_chat.inference.requests import Viewpoint
from internvl_chat.inference.video_captions.caption_files import Forms, write_failures
from internvl_chat.inference.video_captions.clips_shown import Clip, Failure, Request, clips_together
from internvl_chat.inference.weights import language_model_bytes

RUN_NAME, PROGRESS_NAME, CAPTIONS_NAME = "run.json", "progress", "captions.jsonl"


@dataclass(frozen=True)
class Engine:
    """Who writes the captions.

    Args:
        on_ray: actors of a Ray cluster, and not this process or its ranks.
        num_actors: of them; None is one a GPU, or one a node where there are none.
    """

    on_ray: bool = False
    num_actors: int | None = None


_HERE = Engine()


def claim_folder(out: Path, opened: ModelHandle, model: str, per_object: bool = False) -> None:
    """Mark a folder as one of this model's captions.

    Args:
        model: what the user calls it.
        per_object: the captions are of objects, and not of videos.
    Raises:
        UserError: it holds another model's, or captions of the other kind, or a file of captions of unknown origin.
    """
    mark = hashlib.sha256(json.dumps(opened.identity(), sort_keys=True).encode()).hexdigest()[:16]
    path = out / RUN_NAME
    if path.is_file():
        run = read_json(path)
        if not isinstance(run, dict) or run.get("mark") != mark:
            other = run.get("model") if isinstance(run, dict) else None
            raise UserError(
                f"{out}: holds captions of another model ({other}), or of this one before it was changed; "
                "give a new --out"
            )
        _check_kind(out / CAPTIONS_NAME, per_object)
    elif (out / CAPTIONS_NAME).exists():
        raise UserError(f"{out}: holds a {CAPTIONS_NAME} that is not from here; give a new --out")
    elif opened.ranks.is_first:
        write_json(path, {"model": model, "mark": mark})


def _check_kind(captions: Path, per_object: bool) -> None:
    """See to it that captions of objects are not written over those of whole videos, nor the other way round."""
    first = next(split_records(read_text(captions), captions), None) if captions.is_file() else None
    if first is None or ("object" in parse_json(first.text, str(captions))) == per_object:
        return
    there, wanted = ("whole videos", "objects") if per_object else ("objects", "whole videos")
    raise UserError(
        f"{captions}: holds captions of {there}, and those of {wanted} would be written over them: give a new --out"
    )


@dataclass(frozen=True)
class CaptionedVideos:
    """What became of a run's videos: a record a caption, in the order of the videos, and what has none.

    `num_new`, `new_tokens` and `elapsed_s` count what this run wrote itself.
    """

    records: list[dict[str, Any]]
    failures: list[Failure]
    num_new: int
    new_tokens: int
    elapsed_s: float

    def write(self, out: Path, forms: Forms) -> None:
        """`captions.jsonl` and `failures.jsonl`, and the other forms that are asked for.

        Raises:
            UserError: a file cannot be written.
        """
        write_jsonl(out / CAPTIONS_NAME, self.records)
        write_failures(out, [asdict(failure) for failure in self.failures])
        forms.write(out, self.records)

    def counts(self) -> dict[str, float]:
        """What was done, in numbers: captions in all and new ones, failures, and new captions and tokens a second."""
        return {
            "captions": len(self.records),
            "new": self.num_new,
            "failures": len(self.failures),
            "captions_per_s": round(self.num_new / self.elapsed_s, 3),
            "tokens_per_s": round(self.new_tokens / self.elapsed_s, 1),
        }


def caption_videos(
    opened: ModelHandle,
    videos: Sequence[ListedVideo],
    request: Request,
    decoding: Decoding,
    limits: BatchLimits,
    out: Path,
    model: str,
    engine: Engine = _HERE,
) -> CaptionedVideos:
    """Write the captions of all videos, or find them in `out`, where every finished one is kept.

    Args:
        model: what the user calls it.
    Raises:
        UserError: `out` holds another model's captions or cannot be written, or the model cannot be used.
    """
    began = time.perf_counter()
    claim_folder(out, opened, model, request.per_object)
    clips, failures = clips_together(videos, request, opened.ranks)
    if opened.ranks.is_first:
        sys.stderr.write("".join(f"error: {json.dumps(f.video)}: {f.reason}\n" for f in failures))
    before = read_progress(out / PROGRESS_NAME).keys()
    opened.ranks.gathered(None)  # no rank writes before all have looked
    predictions = _predict(opened, clips, decoding, limits, out / PROGRESS_NAME, engine)
    new = {key: texts for key, texts in read_progress(out / PROGRESS_NAME).items() if key not in before}
    tokens = opened.encoder.tokenizer([text for texts in new.values() for text in texts])["input_ids"] if new else []
    failures += [
        Failure(clip.video.name, predictions.failures[clip.id]) for clip in clips if clip.id in predictions.failures
    ]
    return CaptionedVideos(
        list(_records(clips, predictions, model, request.choice)),
        failures,
        len(new),
        sum(map(len, tokens)),
        time.perf_counter() - began,
    )


def _predict(
    opened: ModelHandle,
    clips: Sequence[Clip],
    decoding: Decoding,
    limits: BatchLimits,
    folder: Path,
    engine: Engine,
) -> Predictions:
    view = _view_of(opened)
    asks, identity = [clip.ask for clip in clips], ["captions", opened.identity()]
    if not engine.on_ray:
        load = partial(_load, opened, decoding)
        return predict(
            asks,
            [view],
            load,
            decoding=decoding,
            identity=identity,
            folder=folder,
            limits=limits,
            ranks=opened.ranks,
        )
    from internvl_chat.inference.video_captions.ray_engine import caption_on_ray

    work = plan_work(asks, [view], decoding, identity, folder, limits)
    caption_on_ray(work, partial(_open_there, opened, decoding), limits, folder, engine.num_actors)
    return work.predictions(asks)


def _view_of(opened: ModelHandle) -> Viewpoint:
    return Viewpoint(opened.encoder, opened.encoder.config.num_frames)


def _load(opened: ModelHandle, decoding: Decoding) -> Captioners:
    """The model as what writes captions; of one in fewer bits the memory is told."""
    model = opened.load()
    if opened.quantize_bits is not None and opened.ranks.is_first:
        mib = language_model_bytes(model) / 2**20
        sys.stderr.write(f"language model in {opened.quantize_bits} bits: {mib:.2f} MiB of weights\n")
    return Captioners(Ensemble([model]), [0], opened.encoder.tokenizer, caption_ends(opened.encoder), decoding)


def _open_there(opened: ModelHandle, decoding: Decoding) -> tuple[Viewpoint, Callable[[], Captioners]]:
    """What an actor needs of a model whose files its node sees too."""
    return _view_of(opened), partial(_load, opened, decoding)


def _records(
    clips: Sequence[Clip], predictions: Predictions, model: str, choice: FrameChoice
) -> Iterator[dict[str, Any]]:
    names = Counter(clip.called for clip in clips)
    for clip in clips:
        texts = predictions.candidates.get(clip.id)
        if texts is None:
            continue
        # A list may ask several questions of one video.
        own = clip.called if names[clip.called] == 1 else f"{clip.called}: {clip.question}"
        record: dict[str, Any] = {
            "id": own,
            "video": clip.video.name,
            "caption": texts[0],
            "question": clip.question,
            "model": model,
            "strategy": choice.name,
            "frames": clip.frames,
            "times": clip.times_s,
            "seconds": clip.seconds,
        }
        if clip.track is not None:
            record["object"] = clip.track.name
        if clip.unseen_s is not None:
            record["unseen"] = clip.unseen_s
        if len(texts) > 1:
            record["candidates"] = texts
        yield record
