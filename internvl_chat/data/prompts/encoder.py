"""A sample to tensors: one encoder for training, prediction and pictures, whatever the sample shows.

What is a matter of the base (tiles, tensors, template, tokens) is its family's.

Shape letters: L text positions, F pictures shown (frames or images), T tiles, S the tile's side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from internvl_chat.boxes import BoxArray
from internvl_chat.choices import VideoBackend
from internvl_chat.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from internvl_chat.contracts import Features, Sample, Turn, UserError
from internvl_chat.data.controls.base import Control, ExtraView, Scene
from internvl_chat.data.media.frame_cache import FrameCache
from internvl_chat.data.media.sampling import FrameSampling, clip_window, sample_frames
from internvl_chat.data.media.sources import MediaHeader, Pictures, read_media_header, read_pictures
from internvl_chat.data.media.tiling import WHOLE, View
from internvl_chat.data.media.transforms import JPEG_QUALITIES, recompressed
from internvl_chat.data.media.video import stream_frames
from internvl_chat.data.media.video_features import read_features
from internvl_chat.data.prompts.encoding import refuse_steering
from internvl_chat.data.prompts.frame_choice import FrameChoice, ShownTimes
from internvl_chat.data.prompts.prompt_config import PROMPT_CONFIG_NAME as PROMPT_CONFIG_NAME
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.prompts.sample_pictures import Picture, Resize, SamplePictures
from internvl_chat.data.prompts.tokenizer import tokens_that_steer
from internvl_chat.data.prompts.wordings import reworded
from internvl_chat.data.records.tracks import boxes_at
from internvl_chat.families import family_of_style
from internvl_chat.vision import Vision


@dataclass(frozen=True)
class SamplePlan:
    """A sample's text, and what is still to be decoded for it: its length is known before a picture is.

    Args:
        input_ids, labels: [L].
        frame_indices: [F] frame or image numbers to read; none for text alone.
        tensors: what the controls hand to their modules, see `Control.tensors`; empty for text alone.
        views: what each of the T tiles shows.
        painters: the controls that alter the pictures.
        painted: boxes [F, 4] that they go by, one array an object; none without a painter.
        jpeg_qualities: the quality each of the F pictures is compressed at; none are without augmentation.
        position_ids: [L]; None where they count the tokens.
    """

    input_ids: list[int]
    labels: list[int]
    frame_indices: npt.NDArray[np.integer]
    tensors: Vision
    views: tuple[View, ...] = ()
    painters: tuple[Control, ...] = ()
    painted: tuple[BoxArray, ...] = ()
    jpeg_qualities: tuple[int, ...] = ()
    position_ids: list[int] | None = None

    @property
    def boxes(self) -> BoxArray:
        """[T, 4] in thousandths of the tile, zeros where no box points at it."""
        return self.tensors["boxes"].numpy() if self.tensors else np.zeros((0, 4), dtype=np.int64)


class SampleEncoder:
    """Turns a sample and frame numbers into features: tiles, boxes, text. Training and prediction share it."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: PromptConfig,
        video_backend: VideoBackend = "pyav",
        frame_cache: FrameCache | None = None,
        tower: Callable[[], Sequence[float]] | None = None,
    ) -> None:
        """`tower` tells the model's tower from others, for features of videos; None: the model reads none."""
        self.tower = tower
        self.tokenizer = tokenizer
        self.frame_cache = frame_cache
        self.config = config
        self.video_backend = video_backend
        self.family = family_of_style(config.conv_style)
        self._steering = tokens_that_steer(tokenizer)
        self._last_header: tuple[object, MediaHeader] | None = None

    def choose_frames(
        self, sample: Sample, num_frames: int, method: FrameSampling, rng: np.random.Generator | None = None
    ) -> npt.NDArray[np.integer]:
        """The frame numbers [F] that are shown: of images all, of a video some, or all where its dataset says so.

        Some are those of the configuration's `frame_choice`, where it has one; in prediction (`centre`) another number
        of frames than it speaks of is taken as asked for, and comes first. No frame is decoded.

        Raises:
            UserError: the video cannot be read, or has no such clip.
        """
        if sample.video_path is None:
            return np.arange(len(sample.image_paths))
        if self._shows_features_alone(sample):
            return np.arange(1)
        if sample.frame_numbers:
            return np.array(sample.frame_numbers)
        header = self.header(sample)
        try:
            if self._chooses_by_time(sample, num_frames, method):
                shown = ShownTimes.of(header.timeline).within(sample.clip_s)
                return FrameChoice.named(self.config.frame_choice).frames(shown)
            first, length = clip_window(sample.clip_s, header.timeline)
            if getattr(self.family.data, "SHOWS_FRAMES_ONCE", False):
                num_frames = min(num_frames, length)
            if sample.every_frame:
                return first + np.arange(length)
            return first + sample_frames(num_frames, length, method, rng, header.timeline.part(first, length))
        except UserError as error:
            raise UserError(f"{sample.source}: sample {sample.id!r}: {error}") from error

    def _chooses_by_time(self, sample: Sample, num_frames: int, method: FrameSampling) -> bool:
        is_asked_for = method == "centre" and num_frames != self.config.num_frames
        return bool(self.config.frame_choice) and not is_asked_for and not sample.every_frame

    def plan(
        self, sample: Sample, frame_indices: npt.NDArray[np.integer], rng: np.random.Generator | None = None
    ) -> SamplePlan:
        """Text, boxes and tiles of the sample at these frames; no picture is decoded.

        Args:
            rng: what augmentation draws from, for samples that ask for it; without it there is none.
        Raises:
            UserError: a header or a track cannot be used, or the sample has more than `max_seq_length` tokens.
        """
        header = self.header(sample)
        tracks = ((track.name, boxes_at(track, frame_indices, header, sample.source)) for track in sample.tracks)
        scene = Scene(tuple(tracks), "Image-1" if sample.image_paths else self.config.frame_label)
        controls = self.config.controls
        extra = [view for control in controls for view in control.views(scene)] if scene.tracks else []
        views = [*self._views_of_pictures(sample, header, frame_indices), *([view] for _, view in extra)]
        try:
            turns, painters = self._conversation(sample, scene, len(frame_indices), extra)
            encoded = self.family.data.encode(turns, self.tokenizer, self.config, views)
        except ValueError as error:
            raise UserError(f"{sample.source}: sample {sample.id!r}: {error}") from error
        tiles = tuple(view for of_picture in views for view in of_picture)
        if len(encoded.input_ids) > self.config.max_seq_length:
            raise UserError(
                f"{sample.source}: sample {sample.id!r} has {len(encoded.input_ids)} tokens with {len(tiles)} tiles, "
                f"over max_seq_length {self.config.max_seq_length}: show fewer frames or tiles (--max_num_frame in "
                "training, --num_frames otherwise, --max_dynamic_patch), or raise the limit"
            )
        qualities: Sequence[int] = ()
        if sample.data_augment and rng is not None:
            qualities = rng.integers(*JPEG_QUALITIES, size=len(frame_indices), endpoint=True).tolist()
        return SamplePlan(
            encoded.input_ids,
            encoded.labels,
            frame_indices,
            self._tensors(scene, tiles),
            tiles,
            painters,
            tuple(boxes for _, boxes in scene.tracks) if painters else (),
            tuple(qualities),
            encoded.position_ids,
        )

    def pixels(self, sample: Sample, plan: SamplePlan) -> Vision:
        """Decode what `plan` shows of the sample: its family's tensors, none for text alone.

        Raises:
            UserError: a picture or video cannot be decoded.
        """
        if not plan.views:
            return {}
        pictures = SamplePictures(lambda: self.pictures(sample, plan))
        features_path, tower = sample.features_path, self.tower
        if features_path is not None and tower is not None:
            pictures = replace(pictures, features=lambda: read_features(features_path, tower()))
        if _is_plain_video(sample, plan):
            pictures = replace(pictures, frame_tiles=lambda resize: self._video_tiles(sample, plan, resize))
        return self.family.data.pixels(pictures, plan.views, self.config)

    def _video_tiles(self, sample: Sample, plan: SamplePlan, resize: Resize) -> Picture:
        """The tiles [F, S, S, 3] of a video file, from the cache where there is one."""
        video = sample.video_path
        assert video is not None

        def decode() -> Picture:
            if plan.painters:
                return resize(self.pictures(sample, plan))
            return resize(stream_frames(video, plan.frame_indices, self.video_backend))

        if self.frame_cache is None:
            return decode()
        drawn = (plan.painters, [boxes.tolist() for boxes in plan.painted]) if plan.painters else ()
        variant = f"{self.family.name} {drawn}"
        return self.frame_cache.tiles(
            video, plan.frame_indices, self.config.force_image_size, self.video_backend, decode, variant
        )

    def pictures(self, sample: Sample, plan: SamplePlan) -> Pictures:
        """The F pictures [H, W, 3] as the model sees them before they are cut: painted, and compressed.

        Raises:
            UserError: a picture or video cannot be decoded.
        """
        if self._shows_features_alone(sample):
            return np.zeros((1, 1, 1, 3), dtype=np.uint8)
        pictures = read_pictures(sample, plan.frame_indices, self.video_backend)
        for control in plan.painters:
            pictures = control.paint(pictures, plan.painted)
        if plan.jpeg_qualities:
            pictures = [recompressed(p, quality) for p, quality in zip(pictures, plan.jpeg_qualities, strict=True)]
        return pictures

    def __call__(
        self, sample: Sample, frame_indices: npt.NDArray[np.integer], rng: np.random.Generator | None = None
    ) -> Features:
        """Encode the sample at these frames, augmented from `rng` if it asks for it.

        Raises:
            UserError: a file cannot be used, or the sample has more than `max_seq_length` tokens.
        """
        plan = self.plan(sample, frame_indices, rng)
        return {
            "input_ids": torch.tensor(plan.input_ids),
            "labels": torch.tensor(plan.labels),
            "vision": {**self.pixels(sample, plan), **plan.tensors},
        }

    def _shows_features_alone(self, sample: Sample) -> bool:
        """Whether no frame of its video is looked at."""
        return self.tower is not None and sample.features_path is not None and not sample.tracks

    def header(self, sample: Sample) -> MediaHeader:
        """The header of what a sample shows; samples of one video follow one another, so the last one is kept.

        Raises:
            UserError: a file is missing or cannot be read.
        """
        key = (sample.image_paths, sample.video_path, sample.root)
        # Taken once: a thread beside this one may put another in its place.
        last = self._last_header
        if last is None or last[0] != key:
            self._last_header = last = (key, read_media_header(sample))
        return last[1]

    def _views_of_pictures(
        self, sample: Sample, header: MediaHeader, frame_indices: npt.NDArray[np.integer]
    ) -> list[list[View]]:
        """The tiles of each picture shown; the images of a sample share the most that are allowed."""
        most = self.config.max_dynamic_patch if sample.max_dynamic_patch is None else sample.max_dynamic_patch
        most = max(1, most // max(1, len(sample.image_paths)))
        sizes_px = header.sizes_at(frame_indices).tolist()
        return self.family.data.views(sizes_px, self.config, most, is_video=not sample.image_paths)

    def _tensors(self, scene: Scene, tiles: Sequence[View]) -> Vision:
        tensors: Vision = {}
        for control in self.config.controls if tiles else ():
            tensors |= control.tensors(scene, tiles)
        return tensors

    def _conversation(
        self, sample: Sample, scene: Scene, num_pictures: int, extra: Sequence[ExtraView]
    ) -> tuple[list[Turn], tuple[Control, ...]]:
        """The turns with their controls' words and one `<image>` a picture written out, and the controls that paint.

        Raises:
            ValueError: the placeholders do not fit what the sample shows, a text holds what steers the chat, or a
                question speaks of a box it has not.
        """
        turns: list[Turn] = []
        used: set[Control] = set()
        is_first = True
        lines = [line for line, _ in extra]
        for turn in sample.turns:
            refuse_steering(turn, self._steering)
            if turn.speaker == "human":
                turn, of_turn = self._pointed_out(turn, scene, is_first)
                used.update(of_turn)
                if sample.video_path is None and VIDEO_PLACEHOLDER in turn.text:
                    raise ValueError(f"the question holds {VIDEO_PLACEHOLDER}, but the record has no video")
                if sample.video_path is not None and (is_first or VIDEO_PLACEHOLDER in turn.text):
                    text = self.family.data.expand_video(turn.text, num_pictures, self.config, lines)
                    turn = replace(turn, text=text)
                is_first = False
            turns.append(turn)
        if sample.image_paths and extra:
            turns = _with_extra_images(turns, lines)
        return turns, tuple(control for control in self.config.controls if control.paints and control in used)

    def _pointed_out(self, question: Turn, scene: Scene, is_first: bool) -> tuple[Turn, list[Control]]:
        """A question in the words of the controls that go with it, and these controls."""
        if not scene.tracks:
            if question.controls:
                end = question.text[-80:]
                raise ValueError(f"the question speaks of a box, but the record has no track: {end!r}")
            return question, []
        used = [c for c in self.config.controls if c.is_on(c.name in question.controls, is_first)]
        question = reworded(question, scene.tracks[0][0], frozenset(control.name for control in used))
        for control in used:
            question = replace(question, text=control.words(question, scene))
        return question, used


def _is_plain_video(sample: Sample, plan: SamplePlan) -> bool:
    """Whether each frame of a video file is shown as one whole tile, and not compressed anew."""
    if sample.video_path is None or sample.video_path.is_dir() or plan.jpeg_qualities or sample.features_path:
        return False
    return len(plan.views) == len(plan.frame_indices) and all(view.part == WHOLE for view in plan.views)


def _with_extra_images(turns: Sequence[Turn], lines: Sequence[str]) -> list[Turn]:
    """Turns of an image record with the lines of extra views after the last of its `<image>`."""
    asking = [i for i, turn in enumerate(turns) if turn.speaker == "human" and IMAGE_PLACEHOLDER in turn.text]
    if not asking:
        return list(turns)
    last = asking[-1]
    before, placeholder, after = turns[last].text.rpartition(IMAGE_PLACEHOLDER)
    extra = "".join(lines).removesuffix("\n")
    text = f"{before}{placeholder}\n{extra}{after}"
    return [*turns[:last], replace(turns[last], text=text), *turns[last + 1 :]]
