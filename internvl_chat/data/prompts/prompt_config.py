"""How a sample becomes a prompt: one object for training, prediction, pictures and reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from internvl_chat.constants import NORMALISATIONS
from internvl_chat.contracts import UserError
from internvl_chat.data.controls.base import Control, control_kinds, default_controls
from internvl_chat.data.prompts.frame_choice import FrameChoice
from internvl_chat.families import family_of_style
from internvl_chat.files import read_json, write_json
from internvl_chat.settings import check_settings, setting

PROMPT_CONFIG_NAME = "prompt_config.json"
# What IntentVCNet predicts with.
_FRAMES = 32

FrameLabel = Literal["Frame-1", "Frame1"]
Normalisation = Literal["imagenet", "clip", "siglip"]


@dataclass(frozen=True)
class PromptSettings:
    """What is shown of a sample and in which template: flags of the training script, saved with a checkpoint."""

    conv_style: str = setting("internvl2_5", "Conversation template.")
    force_image_size: int = setting(448, "Side of the tile a frame is squashed to, pixels.")
    max_seq_length: int = setting(8192, "Tokens a sample may have; more is an error.")
    min_num_frame: int = setting(8, "Fewest frames shown of a video.")
    max_num_frame: int = setting(32, "Most frames shown of a video.")
    frame_choice: str = setting(
        "",
        "Frames of a video by when they are shown, in training and prediction alike: chat, base, uniformN or fpsX; "
        "empty: as --sampling_method and the numbers of frames say.",
    )
    frame_label: FrameLabel = setting("Frame-1", "How frames are called.")
    dynamic_image_size: bool = setting(False, "Tile images dynamically; videos never are.")
    min_dynamic_patch: int = setting(1, "Fewest tiles of an image.")
    max_dynamic_patch: int = setting(12, "Most tiles of an image; videos have one a frame.")
    use_thumbnail: bool = setting(False, "Add a thumbnail to a tiled image; not for videos.")
    pad2square: bool = setting(False, "Pad pictures to a square instead of squashing them.")
    normalize_type: Normalisation = setting("imagenet", "Mean and deviation of the pixels; must be the checkpoint's.")

    def __post_init__(self) -> None:
        family_of_style(self.conv_style)
        if self.frame_choice:
            FrameChoice.named(self.frame_choice)
        check_settings(self, {"min_dynamic_patch": 1, "max_dynamic_patch": 1})
        if self.min_dynamic_patch > self.max_dynamic_patch:
            raise UserError(
                f"--min_dynamic_patch {self.min_dynamic_patch}: expected at most --max_dynamic_patch "
                f"{self.max_dynamic_patch}"
            )
        if self.pad2square and self.dynamic_image_size:
            raise UserError("--pad2square and --dynamic_image_size: a picture that is cut into tiles is not padded")

    @property
    def fill_colour(self) -> tuple[int, int, int]:
        """The mean colour, which the margins of `pad2square` have."""
        red, green, blue = (int(255 * mean) for mean in NORMALISATIONS[self.normalize_type][0])
        return red, green, blue

    @property
    def num_frames(self) -> int:
        """Frames of a video in prediction, where nobody says: 32, or the nearest number that training showed."""
        return min(max(_FRAMES, self.min_num_frame), self.max_num_frame)


@dataclass(frozen=True)
class PromptConfig(PromptSettings):
    """How a sample becomes a prompt. It is saved with a checkpoint, so that prediction asks as training did.

    Args:
        tokens_per_frame: context tokens of a tile, which follow from the model.
        controls: the ways to tell the model which object is meant, combined freely; all of the folder's, each with its
            flags. None of them changes the prompt of a sample without a track.
    """

    tokens_per_frame: int = field(kw_only=True)
    controls: tuple[Control, ...] = field(kw_only=True, default_factory=default_controls)

    @classmethod
    def of(cls, conv_style: str, force_image_size: int, tokens_per_frame: int, **flags: Any) -> PromptConfig:
        """From flags by their names, those of the controls among them; a flag that is not given has its default.

        Raises:
            TypeError: there is no such flag.
            UserError: a flag has no value that it can have.
        """
        controls = []
        for kind in control_kinds():
            own = {own.name for own in fields(kind)} & flags.keys()
            controls.append(kind(**{name: flags.pop(name) for name in own}))
        shown = {"conv_style": conv_style, "force_image_size": force_image_size, **flags}
        return cls(**shown, tokens_per_frame=tokens_per_frame, controls=tuple(controls))

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that its controls need of the model, beside what flags of the model ask for."""
        return tuple(control.module for control in self.controls if control.module)

    def flags(self) -> dict[str, Any]:
        """Every flag by its name, those of the controls among them, and `tokens_per_frame`."""
        own = asdict(self)
        for control in own.pop("controls"):
            own |= control
        return own

    def save(self, folder: Path) -> None:
        write_json(folder / PROMPT_CONFIG_NAME, self.flags())

    @staticmethod
    def load(folder: Path) -> PromptConfig:
        """Read what `save` wrote, by this version or an earlier one: what it lacks, or leaves open, has its default.

        Raises:
            UserError: it holds something else.
        """
        path = folder / PROMPT_CONFIG_NAME
        try:
            return PromptConfig.of(**{name: value for name, value in read_json(path).items() if value is not None})
        except (TypeError, AttributeError) as error:
            raise UserError(f"{path}: is not what training writes ({error})") from error
