"""What the rooms hand each other: Sample -> Features -> PackedBatch, and the error a user can act on.

Shape letters: L text positions, T tiles, N supervised tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from internvl_chat.vision import Vision

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch


class UserError(ValueError):
    """Something the user gave cannot be used; the message says what, where, what was expected, and what to do.

    Entries print it on one line and exit with 1; anything else is a bug and keeps its traceback.
    """


@dataclass(frozen=True)
class Turn:
    """One message of a conversation: who says it, `system`, `human` or `gpt`, and its text.

    `controls` are those that the wording of a question speaks of, by their names, as `question_turn` recognises them.
    """

    speaker: str
    text: str
    controls: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TrackFile:
    """One object's boxes in an `object_bboxes.npy` at `path`; `name` is how the prompt calls the object."""

    name: str
    path: Path


@dataclass(frozen=True, eq=False)
class TrackRows:
    """One object's boxes as a record gives them; K rows.

    Args:
        name: how the prompt calls the object.
        positions: [K] ascending: frame or image numbers from 0, or seconds, as `by` says; with `always` the one row
            holds for every picture, wherever it stands.
        corners: [K, 4] x1 y1 x2 y2, in pixels or, without `in_pixels`, in fractions of the picture's sides.
        is_complete: there must be a row for each frame or image.
        absent: frame or image numbers at which the object is not to be seen, whatever the rows say.
        size_px: width and height of the picture that pixels were counted in, where the record says.
        interpolates: rows are key frames, and between two of them the box moves evenly.
        in_stored: the boxes lie in the pictures as they are stored, before a player turns them.
    """

    name: str
    positions: npt.NDArray[np.float64]
    corners: npt.NDArray[np.float64]
    by: Literal["frame", "second", "always"] = "frame"
    in_pixels: bool = False
    is_complete: bool = False
    absent: frozenset[int] = frozenset()
    size_px: tuple[int, int] | None = None
    in_stored: bool = False
    interpolates: bool = False

    def _content(self) -> tuple[object, ...]:
        rows = (self.positions.tobytes(), self.corners.tobytes())
        kind = (self.by, self.in_pixels, self.is_complete, self.in_stored, self.interpolates)
        return (*rows, *kind, self.name, self.absent, self.size_px)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrackRows) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())


Track = TrackFile | TrackRows


@dataclass(frozen=True)
class Sample:
    """One line of an annotation file with its paths resolved: text alone, images, or a video.

    Args:
        source: where the line stands, for messages.
        image_paths: one a `<image>`, in their order; none where the sample shows a video or nothing.
        video_path: a file, or a folder of frames.
        clip_s: the part of the video that is shown, from and to in seconds; None is all of it.
        tracks: the objects it is about, the one that the question names first.
        root: the resolved folder that its files must lie in, links followed; None is anywhere.
        max_dynamic_patch: most tiles of its images, where its dataset says.
        data_augment: whether training may alter its pictures.
        every_frame: whether all frames of its video are shown, and not a number of them.
        features_path: features of its video, for models that read them in place of its frames.
        frame_numbers: the frames of its video that are shown, where they are chosen already; ascending.
    """

    id: str
    turns: tuple[Turn, ...]
    source: str
    image_paths: tuple[Path, ...] = ()
    video_path: Path | None = None
    clip_s: tuple[float, float] | None = None
    tracks: tuple[Track, ...] = ()
    root: Path | None = None
    max_dynamic_patch: int | None = None
    data_augment: bool = False
    every_frame: bool = False
    frame_numbers: tuple[int, ...] = ()
    features_path: Path | None = None

    @property
    def object_name(self) -> str:
        """How the prompt calls the object that the question is about; empty without a track."""
        return self.tracks[0].name if self.tracks else ""


class Features(TypedDict):
    """One sample as tensors: input_ids [L] and labels [L] int64, and what its family's tower is shown.

    `vision` is empty for text alone. Of every family it holds `boxes` [T, 4] int64 beside its own tensors; a tile that
    no box points at has a box of zeros.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    vision: Vision


@dataclass(frozen=True)
class SharedPrefix:
    """How one sample lies in a packed row: a prompt of `prompt_length` tokens, then its answers one after another.

    An answer continues the prompt as if it stood right behind it; answers do not see each other. Without answers it is
    one causal sequence.
    """

    prompt_length: int
    answer_lengths: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        return self.prompt_length + sum(self.answer_lengths)


class PackedFeatures(TypedDict):
    """Samples in one row to train on, or a single one: its collation with others keeps the form.

    input_ids and position_ids [L]; position_ids restart at each sample, and at each answer after the prompt. `layout`
    has one entry a sample. The token `target_ids[n]` is to be predicted at row position `target_positions[n]`, and
    counts `loss_weights[n]` (all [N]). `vision` has the tensors of all samples, one sample after another.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    layout: tuple[SharedPrefix, ...]
    target_positions: torch.Tensor
    target_ids: torch.Tensor
    loss_weights: torch.Tensor
    vision: Vision


@dataclass(frozen=True)
class SkippedPass:
    """A pass over a prompt that could not be read: its number in the training set, and the error's message."""

    index: int
    reason: str


class PackedBatch(PackedFeatures):
    """A packed row of a whole batch, every text tensor with a batch axis of one, and what is missing from it."""

    skipped: tuple[SkippedPass, ...]
