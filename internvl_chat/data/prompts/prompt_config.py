"""How a sample becomes a prompt: one object for training, prediction, pictures and reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from PIL import ImageColor

from internvl_chat.constants import BOX_START, NORMALISATIONS, REF_START
from internvl_chat.contracts import UserError
from internvl_chat.data.prompts.conversation import CoordinateStyle, CoordinateUnit, FrameLabel
from internvl_chat.data.prompts.templates import CONVERSATION_TEMPLATES
from internvl_chat.files import read_json, write_json

PROMPT_CONFIG_NAME = "prompt_config.json"
# What IntentVCNet predicts with.
_FRAMES = 32

# Whether something is done: always, never, or where the question's wording asks for it.
Switch = Literal["question", "on", "off"]


@dataclass(frozen=True)
class PromptConfig:
    """How a sample becomes a prompt. It is saved with a checkpoint, so that prediction asks as training did.

    The ways to tell the model which object is meant (coordinates, red box, crops, adapter) can be combined freely; a
    question of IntentVCNet's is reworded to what it comes with. None of them concerns a sample without a track.

    Args:
        conv_style: a name in `CONVERSATION_TEMPLATES`.
        force_image_size: the tile's side, pixels.
        tokens_per_frame: `<IMG_CONTEXT>` tokens of a tile.
        absent_boxes: what the coordinate list says of an absent object; `zeros` writes a box of zeros.
        max_seq_length: tokens a sample may have.
        coordinates: whether the question lists the boxes.
        coordinate_unit: thousandths, percent or fractions (`unit`) of the picture's sides.
        coordinate_decimals: decimals of the numbers; None writes what a thousandth needs in the unit.
        coordinate_stride: list every n-th frame; 1 lists all.
        red_box: whether boxes are drawn into the pictures.
        red_box_colour: a colour's name or `#rrggbb`.
        red_box_width_px: width of the line, pixels of the picture.
        crop_frames: extra tiles that show the object alone, from so many of the frames; 0 is none.
        crop_margin: what a crop shows around the box, in sides of the box.
        box_adapter: whether the boxes reach the box adapters.
        frame_label: `Frame-1` (InternVL's training) or `Frame1` (its model cards).
        dynamic_image_size: cut images into tiles; frames of videos never are.
        min_dynamic_patch, max_dynamic_patch: fewest and most tiles of an image; several images share the latter.
        use_thumbnail: add a tile of the whole image to one that is cut.
        pad2square: make pictures that are not cut square with a margin, instead of squashing them.
        normalize_type: mean and deviation of the pixels, a name in `NORMALISATIONS`.
        min_num_frame, max_num_frame: fewest and most frames of a video in training; None where it is not known.
    """

    conv_style: str
    force_image_size: int
    tokens_per_frame: int
    absent_boxes: str = "absent"
    max_seq_length: int = 16384
    coordinates: Switch = "question"
    coordinate_unit: CoordinateUnit = "thousandths"
    coordinate_decimals: int | None = None
    coordinate_stride: int = 1
    red_box: Switch = "question"
    red_box_colour: str = "red"
    red_box_width_px: int = 3
    crop_frames: int = 0
    crop_margin: float = 0.25
    box_adapter: bool = True
    frame_label: FrameLabel = "Frame-1"
    dynamic_image_size: bool = False
    min_dynamic_patch: int = 1
    max_dynamic_patch: int = 12
    use_thumbnail: bool = False
    pad2square: bool = False
    normalize_type: str = "imagenet"
    min_num_frame: int | None = None
    max_num_frame: int | None = None

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UserError(f"unknown --{name} {getattr(self, name)!r}: expected one of {', '.join(known)}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} {value}: expected {least} or more")
        if self.min_dynamic_patch > self.max_dynamic_patch:
            raise UserError(
                f"--min_dynamic_patch {self.min_dynamic_patch}: expected at most --max_dynamic_patch "
                f"{self.max_dynamic_patch}"
            )
        if not self.absent_boxes.strip() or any(mark in self.absent_boxes for mark in ("\n", BOX_START, REF_START)):
            raise UserError(f"--absent_boxes {self.absent_boxes!r}: expected a few words on one line, or 'zeros'")
        if self.pad2square and self.dynamic_image_size:
            raise UserError("--pad2square and --dynamic_image_size: a picture that is cut into tiles is not padded")
        try:
            ImageColor.getcolor(self.red_box_colour, "RGB")
        except ValueError as error:
            raise UserError(f"--red_box_colour {self.red_box_colour!r}: expected a name, or #rrggbb") from error

    @property
    def coordinate_style(self) -> CoordinateStyle:
        """How the coordinate list is written."""
        return CoordinateStyle(
            self.coordinate_unit, self.coordinate_decimals, self.coordinate_stride, self.absent_boxes
        )

    @property
    def fill_colour(self) -> tuple[int, int, int]:
        """The mean colour, which the margins of `pad2square` have."""
        red, green, blue = (int(255 * mean) for mean in NORMALISATIONS[self.normalize_type][0])
        return red, green, blue

    @property
    def num_frames(self) -> int:
        """Frames of a video in prediction, where nobody says: 32, or the nearest number that training showed."""
        return min(max(_FRAMES, self.min_num_frame or _FRAMES), self.max_num_frame or _FRAMES)

    def save(self, folder: Path) -> None:
        write_json(folder / PROMPT_CONFIG_NAME, asdict(self))

    @staticmethod
    def load(folder: Path) -> PromptConfig:
        """Read what `save` wrote, by this version or an earlier one: what it lacks has its default."""
        path = folder / PROMPT_CONFIG_NAME
        try:
            return PromptConfig(**read_json(path))
        except TypeError as error:
            raise UserError(f"{path}: is not what training writes ({error})") from error


_CHOICES = {
    "conv_style": tuple(CONVERSATION_TEMPLATES),
    "coordinates": get_args(Switch),
    "coordinate_unit": get_args(CoordinateUnit),
    "red_box": get_args(Switch),
    "frame_label": get_args(FrameLabel),
    "normalize_type": tuple(NORMALISATIONS),
}
_LEAST = {
    "coordinate_decimals": 0,
    "coordinate_stride": 1,
    "red_box_width_px": 1,
    "crop_frames": 0,
    "crop_margin": 0,
    "min_dynamic_patch": 1,
    "max_dynamic_patch": 1,
}
