"""Features of a video in a file of its own, which stand for the video: what made them is written beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from internvl_chat.constants import FEATURES_SUFFIX as FEATURES_SUFFIX
from internvl_chat.contracts import UserError
from internvl_chat.files import replacing

_FEATURES, _TOWER, _FRAMES, _SOURCE = "video_features", "tower", "frames", "source"
# One tower's numbers in half precision are so near to those in full precision.
_TOWER_TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """Features of one video.

    Args:
        tokens_NC: as the model is shown them before its projector.
        tower: a few numbers that tell the tower that made them from others.
        num_frames: that they were made of.
        source_mark: of the content that they were made of; empty where nobody said.
    """

    tokens_NC: npt.NDArray[np.float32]
    tower: tuple[float, ...]
    num_frames: int
    source_mark: str = ""

    def save(self, path: Path) -> None:
        """Write them in half precision."""
        arrays: dict[str, npt.NDArray[np.floating]] = {
            _FEATURES: self.tokens_NC.astype(np.float16),
            _TOWER: np.array(self.tower, dtype=np.float32),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(arrays, temporary, metadata={_FRAMES: str(self.num_frames), _SOURCE: self.source_mark})


def read_features(path: Path, tower: Sequence[float]) -> npt.NDArray[np.float32]:
    """The features [N, C] of a file, for a model with this tower.

    Raises:
        UserError: the file cannot be read, or another tower made them.
    """
    with _opened(path, tower) as file:
        return file.get_tensor(_FEATURES).astype(np.float32)


def check_made_of(path: Path, tower: Sequence[float], source_mark: str) -> None:
    """See to it that a file's features are those of this tower, and of what has this mark now, without reading them.

    Raises:
        UserError: it holds none, or they were made by another tower, or of another video.
    """
    with _opened(path, tower) as file:
        mark = (file.metadata() or {}).get(_SOURCE)
        if mark and mark != source_mark:
            raise UserError(f"{path}: are features of what its video was before: delete the file to make them anew")


@contextmanager
def _opened(path: Path, tower: Sequence[float]) -> Iterator[safe_open]:
    """A file of features that this tower made."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(safe_open(path, "np"))
            made_by, _ = file.get_tensor(_TOWER), file.get_slice(_FEATURES)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path}: holds no features of a video ({error}); make them with 'extract-features'"
            ) from error
        if len(made_by) != len(tower) or not np.allclose(made_by, tower, rtol=_TOWER_TOLERANCE, atol=1e-6):
            raise UserError(
                f"{path}: are features of another tower than this model's; make them with 'extract-features --model' "
                "of it"
            )
        yield file


def frames_of_features(path: Path) -> int:
    """How many frames the features of a file were made of.

    Raises:
        UserError: it holds none.
    """
    try:
        with safe_open(path, "np") as file:
            return int((file.metadata() or {})[_FRAMES])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path}: holds no features of a video ({error}); make them with 'extract-features'") from error
