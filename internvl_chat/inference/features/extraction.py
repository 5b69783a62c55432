"""Videos, or other projects' pickles of their features, to files of features that training and answers read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.media.array_pickles import read_array
from internvl_chat.data.media.sources import content_mark, read_media_header, read_pictures
from internvl_chat.data.media.video_features import FEATURES_SUFFIX, VideoFeatures, check_made_of
from internvl_chat.data.prompts.sample_pictures import SamplePictures
from internvl_chat.families import family_of
from internvl_chat.families.halves import FeaturesModule
from internvl_chat.inference.handle import ModelHandle
from internvl_chat.model.loading import load_config


@dataclass(frozen=True)
class Extracted:
    """What became of a video, or of a pickle: it was there already, or why it has no features."""

    source: Path
    was_there: bool = False
    fault: str = ""


def extract_features(
    opened: ModelHandle, sources: Sequence[Path], root: Path, folder: Path, batch_frames: int, from_pickles: bool
) -> Iterator[Extracted]:
    """Write the features of this rank's share of the sources; yields each one when it is done.

    Args:
        sources: videos, or with `from_pickles` pickles of features; files below `folder` are named as these below
            `root`.
        batch_frames: shown to the tower at a time.
    Raises:
        UserError: the model reads no features, or its weights cannot be read.
    """
    reads = features_module(opened)
    mark = reads.tower_mark(opened.folder, opened.base_path)
    ranks = opened.ranks
    tower = None
    if not from_pickles:
        tower = reads.VideoTower(opened.folder, opened.base_path, ranks.device, ranks.dtype, batch_frames)
    for source in sources[ranks.rank :: ranks.size]:
        target = folder / source.relative_to(root).with_suffix(FEATURES_SUFFIX)
        try:
            if target.is_file():
                check_made_of(target, mark, content_mark(source))
                yield Extracted(source, was_there=True)
                continue
            if tower is None:
                tokens, count = _of_pickle(source, *reads.features_shape(opened.folder))
            else:
                frames = _frames_of(opened, source)
                tokens, count = tower(frames).cpu().numpy(), len(frames)
            VideoFeatures(tokens, mark, count, content_mark(source)).save(target)
        except (UserError, OSError) as error:
            yield Extracted(source, fault=str(error))
        else:
            yield Extracted(source)


def features_module(opened: ModelHandle) -> FeaturesModule:
    """The family's file about features.

    Raises:
        UserError: it has none.
    """
    family = family_of(load_config(opened.folder))
    if family.features is None:
        raise UserError(f"{opened.folder}: a model of {family.name} reads videos themselves, and no features of them")
    return family.features


def _frames_of(opened: ModelHandle, video: Path) -> torch.Tensor:
    """The normalised frames [F, 3, S, S] that prediction would show of a video."""
    encoder, sample = opened.encoder, Sample("", (), str(video), video_path=video)
    indices = encoder.choose_frames(sample, encoder.config.num_frames, "centre")
    header = read_media_header(sample)
    views = encoder.family.data.views(header.sizes_at(indices).tolist(), encoder.config, 1, is_video=True)
    pictures = SamplePictures(lambda: read_pictures(sample, indices, encoder.video_backend))
    every = [view for of_picture in views for view in of_picture]
    return encoder.family.data.pixels(pictures, every, encoder.config)["video_frames"]


def _of_pickle(path: Path, frames: int, patches: int, width: int) -> tuple[npt.NDArray[np.float32], int]:
    """The features of a pickle, and the number of frames that they were made of."""
    array = read_array(path)
    if array.shape != (frames + patches, width) or not np.isfinite(array).all():
        raise UserError(
            f"{path}: holds an array {list(array.shape)}, expected finite numbers [{frames + patches}, {width}]: are "
            "they features of this model's tower?"
        )
    # Rows of frames that a shorter video does not have are zero.
    seen = np.flatnonzero(array[:frames].any(axis=1))
    return array.astype(np.float32), int(seen[-1]) + 1 if len(seen) else 1
