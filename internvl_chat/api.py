"""One model to caption, chat and probe with: what a notebook, the command line, a page and a server call.

from internvl_chat import Captioner

model = Captioner.open("work_dirs/run")
print(model.caption("clip.mp4", "object_bboxes.txt", name="dog"))
model.caption(frames, [12, 8, 30, 40], unit="pixels", track_from=0)  # a notebook shows frames, box and caption
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image
from transformers import PreTrainedModel

from internvl_chat.captions import Caption as Caption
from internvl_chat.captions import Following as Following
from internvl_chat.command_line import libraries_quiet
from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import Sample, Track, TrackRows, UserError
from internvl_chat.data.media.drawing import Strip, contact_sheet
from internvl_chat.data.media.given_clips import GivenClip, clip_path
from internvl_chat.data.prompts.encoder import SampleEncoder
from internvl_chat.data.prompts.wordings import question_turn, wording_named
from internvl_chat.data.records.given.given_boxes import check_given_boxes
from internvl_chat.data.records.given.given_tracks import GivenTrack, as_tracks, one_track, says_its_form
from internvl_chat.inference.chat import Chat
from internvl_chat.inference.decoding import Decoding, check_count
from internvl_chat.inference.ensemble import Ensemble
from internvl_chat.inference.generation import Captioners, caption_ends
from internvl_chat.inference.handle import ModelHandle, open_model
from internvl_chat.inference.requests import Ask, Shown, Unreadable, Viewpoint, encode_clip
from internvl_chat.trackers.one_object import track_from_box


class Captioner:
    """A model with the prompts that it was trained with; its weights are read when they are first needed.

    Args:
        num_frames: frames shown of a video; None is what training showed.
    """

    def __init__(self, handle: ModelHandle, *, num_frames: int | None = None) -> None:
        self.handle = handle
        self.view = Viewpoint(handle.encoder, num_frames or handle.encoder.config.num_frames)

    @classmethod
    def open(cls, model: str | Path, *, num_frames: int | None = None, **settings: Any) -> Captioner:
        """A base, a training checkpoint or a merged model, folder or hub id.

        Args:
            settings: as `open_model` takes them, such as `base_path` for a checkpoint whose base was moved.
        Raises:
            UserError: nothing is there that can be asked.
        """
        if not isinstance(model, str | Path):
            raise UserError(f"a model given as {type(model).__name__}: expected its folder, or a hub id")
        if num_frames is not None:
            check_count("num_frames", num_frames, 1)
        known = sorted(signature(open_model).parameters.keys() - {"model"})
        if unknown := settings.keys() - set(known):
            raise UserError(f"{min(unknown)}: is no setting; expected num_frames or one of {', '.join(known)}")
        with libraries_quiet():
            return cls(open_model(model, **settings), num_frames=num_frames)

    @property
    def encoder(self) -> SampleEncoder:
        return self.handle.encoder

    @cached_property
    def model(self) -> PreTrainedModel:
        with libraries_quiet():
            return self.handle.load()

    def caption(
        self,
        clip: GivenClip,
        track: GivenTrack | None = None,
        *,
        name: str | None = None,
        unit: str | None = None,
        order: str | None = None,
        interpolate: bool | None = None,
        track_from: int | None = None,
        question: str | None = None,
        **decoding: Any,
    ) -> Caption:
        """One sentence about the object of a track, or about the clip where no track is given.

        Args:
            clip: a video, a folder of frames, an array [T, H, W, 3] of uint8, or a list of pictures.
            track: see `as_tracks`; `name`, `unit`, `order` and `interpolate` say what its boxes are.
            track_from: the track is one box, where the object is on the frame of this number: it is followed from
                there, see `follow`. Without it one box holds for every frame.
            question: in your own words; None asks IntentVCNet's question, with coordinates where there is a track. A
                model that learnt from another wording wants that one.
            decoding: settings of `Decoding`, such as `num_candidates=4, temperature=0.7`.
        Raises:
            UserError: a file, a track or a setting cannot be used, the track holds several objects, or the object is
                in none of the frames that are shown.
        """
        settings = _decoding(decoding)
        path = self._path(clip)
        if track is not None and track_from is not None:
            track = self.follow(path, track, track_from, name=name, unit=unit, order=order)
            unit = order = None
        tracks = () if track is None else (one_track(track, name, unit, order, interpolate),)
        return self._captions([_sample(path, tracks, question)], settings)[0]

    def caption_clips(
        self, clips: Iterable[GivenClip | tuple[GivenClip, GivenTrack]], **settings: Any
    ) -> Iterator[Caption]:
        """Captions of several clips, each as soon as it is written.

        Args:
            clips: clips, or pairs of a clip and its track.
            settings: of all of them, as `caption` takes them.
        Raises:
            UserError: as `caption`, when it comes to the clip.
        """
        for given in clips:
            clip, track = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
            yield self.caption(clip, track, **settings)

    def follow(
        self,
        clip: GivenClip,
        box: GivenTrack,
        frame: int = 0,
        *,
        tracker: str = "csrt",
        name: str | None = None,
        unit: str | None = None,
        order: str | None = None,
    ) -> Track:
        """The track of an object that is in one box on one frame, for `caption` and all else that takes a track.

        Args:
            tracker: `csrt`, `mil`, or the folder of a SAM 2, SAM 3 or EdgeTAM model; see docs/tracks.md.
        Raises:
            UserError: the box is none, the clip has no such frame, or the tracker is not installed.
        """
        check_count("track_from", frame, 0)
        (start, *others) = as_tracks(box, name=name, unit=unit, order=order)
        if others or not isinstance(start, TrackRows) or len(start.corners) != 1:
            raise UserError("an object is followed from one box, four numbers; a whole track needs no following")
        path = self._path(clip)
        check_given_boxes(_sample(path, (start,), None))
        return track_from_box(path, start, frame, tracker, self.encoder.video_backend)

    def caption_objects(
        self,
        clip: GivenClip,
        tracks: Mapping[str, GivenTrack],
        *,
        unit: str | None = None,
        order: str | None = None,
        interpolate: bool | None = None,
        question: str | None = None,
        **decoding: Any,
    ) -> dict[str, Caption]:
        """A caption of each object of a clip, by its name. The clip is decoded, and its frames are seen, once.

        Raises:
            UserError: as `caption`.
        """
        settings = _decoding(decoding)
        if not isinstance(tracks, Mapping):
            raise UserError(
                f"tracks given as {type(tracks).__name__}: expected {{name: track}}, as in {{'dog': 'a.npy'}}"
            )
        path = self._path(clip)
        forms = _forms(list(tracks.values()), unit, order, interpolate)
        named = {
            # Tracks that were read have names of their own; two dogs may be told apart by their keys.
            key: one_track(track, None if isinstance(track, Track) else key, *form)
            for (key, track), form in zip(tracks.items(), forms, strict=True)
        }
        samples = [_sample(path, (track,), question) for track in named.values()]
        return dict(zip(tracks, self._captions(samples, settings), strict=True))

    def follow_the_box(
        self,
        clip: GivenClip,
        track: GivenTrack,
        other: GivenTrack | None = None,
        *,
        name: str | None = None,
        unit: str | None = None,
        order: str | None = None,
        interpolate: bool | None = None,
        question: str | None = None,
    ) -> Following:
        """Caption the clip with the object's own track, with no box, and with another object's track.

        The object keeps its name in all three, so that nothing but the boxes differs.

        Raises:
            UserError: as `caption`.
        """
        forms = _forms([track] if other is None else [track, other], unit, order, interpolate)
        first = one_track(track, name, *forms[0])
        own = _sample(self._path(clip), (first,), question)
        nowhere = TrackRows(first.name, np.zeros(1), np.zeros((1, 4)), "always")
        samples = [own, replace(own, tracks=(nowhere,))]
        if other is not None:
            theirs = one_track(other, None, *forms[1])
            samples.append(replace(own, tracks=(replace(theirs, name=first.name),)))
        return Following(*self._captions(samples, Decoding(), absent_on_purpose=1))

    def chat(self, **settings: Any) -> Chat:
        """A conversation with this model; `settings` are those of `Chat`."""
        return Chat(self.handle, model=self.model, **{"num_frames": self.view.num_frames, **settings})

    def draw(self, caption: Caption) -> Image.Image:
        """The frames that were shown, with the object's box, and the caption under them.

        Raises:
            UserError: the video cannot be read any more.
        """
        plan = self.view.plan(caption.sample)
        boxes = caption.boxes if caption.sample.tracks else None
        frames = self.encoder.pictures(caption.sample, plan)
        return contact_sheet([Strip(frames, boxes, [repr(caption)])])

    @cached_property
    def _kept(self) -> TemporaryDirectory[str]:
        """Where frames from memory lie, for as long as the captioner is there."""
        return TemporaryDirectory(prefix="clips-")

    def _path(self, clip: GivenClip) -> Path:
        return clip_path(clip, Path() if isinstance(clip, str | Path) else Path(self._kept.name))

    def _captions(
        self, samples: Sequence[Sample], decoding: Decoding, absent_on_purpose: int | None = None
    ) -> list[Caption]:
        """Captions of samples that show the same clip; `absent_on_purpose` is the number of one without a box."""
        shown = []
        for number, sample in enumerate(samples):
            check_given_boxes(sample)
            shown.append(Shown.of(sample, self.view))
            if number != absent_on_purpose:
                shown[-1].check_seen(sample)
        asks = tuple(Ask(str(number), (sample,)) for number, sample in enumerate(samples))
        clip = encode_clip(asks, [self.view])
        if isinstance(clip, Unreadable):
            raise UserError(clip.reason)
        write = Captioners(Ensemble([self.model]), [0], self.encoder.tokenizer, caption_ends(self.encoder), decoding)
        return [self._told(*told) for told in zip(samples, shown, write([clip]), strict=True)]

    def _told(self, sample: Sample, shown: Shown, candidates: Sequence[str]) -> Caption:
        boxes = shown.boxes[0] if shown.boxes else np.zeros((len(shown.frames), 4), dtype=np.int64)
        return Caption(candidates[0], tuple(candidates), sample, shown.frames, boxes, self.draw)


def _forms(
    tracks: Sequence[GivenTrack], unit: str | None, order: str | None, interpolate: bool | None
) -> list[tuple[str | None, str | None, bool | None]]:
    """What is said of each of several tracks: it is about those that do not say it themselves, if there are any."""
    said, own = (unit, order, interpolate), [says_its_form(track) for track in tracks]
    return [(None, None, None) if says and not all(own) else said for says in own]


def _decoding(settings: Mapping[str, Any]) -> Decoding:
    known = [field.name for field in fields(Decoding)]
    for name in settings:
        if name not in known:
            raise UserError(
                f"{name}: is no setting; expected name, unit, order, interpolate, track_from, question or one of "
                f"{', '.join(known)}"
            )
    try:
        return Decoding(**settings)
    except UserError as error:
        # Its messages name the flags of commands.
        raise UserError(str(error).replace("--", "")) from error


def _sample(path: Path, tracks: tuple[Track, ...], question: str | None) -> Sample:
    if question is not None and not isinstance(question, str):
        raise UserError(f"a question given as {type(question).__name__}: expected a text")
    wording = wording_named("coordinates" if tracks else "text_only")
    asked = question or wording.asks(tracks[0].name if tracks else "")
    turns = (question_turn(f"{VIDEO_PLACEHOLDER}\n{asked}"),)
    return Sample(path.name, turns, str(path), video_path=path, tracks=tracks)
