"""What a control is: a frozen dataclass whose fields are its flags, with four hooks that do nothing by default.

Shape letters: F pictures shown (frames or images), T tiles.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import ClassVar, Literal, NamedTuple

from internvl_chat.boxes import BoxArray
from internvl_chat.choices import CONTROLS
from internvl_chat.contracts import Turn
from internvl_chat.data.media.sources import Pictures
from internvl_chat.data.media.tiling import View
from internvl_chat.data.prompts.conversation import frame_line
from internvl_chat.vision import Vision

# One object's boxes under the name that the prompt calls it by: [F, 4] in thousandths.
NamedBoxes = tuple[str, BoxArray]

# Whether something is done: always, never, or where the question's wording asks for it.
Switch = Literal["question", "on", "off"]


@dataclass(frozen=True, eq=False)
class Scene:
    """What is known of a sample's objects at the F pictures shown.

    Args:
        tracks: the objects, the one that is asked about first; empty where the record has none.
        picture_label: how the first picture is called: `Frame-1`, `Frame1` or `Image-1`.
    """

    tracks: tuple[NamedBoxes, ...]
    picture_label: str

    def picture_line(self, number: int) -> str:
        r"""The line of a picture, counted from 1: `Frame-3: <image>\n`."""
        return frame_line(number, self.picture_label)


class ExtraView(NamedTuple):
    """A tile that a control adds behind the pictures, and its line of the prompt, which holds one `<image>`."""

    line: str
    view: View


@dataclass(frozen=True)
class Control:
    """One way to tell the model which object is meant; a file of this folder holds one, and its name is the file's.

    The fields of a control are flags of the training script, and are saved with a checkpoint; `switched_on` and
    `switched_off` are the flags of a run that has it, or has it not. Controls are combined freely. None of `words`,
    `views` and `paint` is called for a sample without a track.
    """

    switched_on: ClassVar[str] = ""
    switched_off: ClassVar[str] = ""
    # Whether `paint` alters pictures; where no control does, frames stream into tiles as they are decoded.
    paints: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The file's name."""
        return name_of(type(self))

    @property
    def module(self) -> str | None:
        """What it needs of the model beside what flags of the model ask for: the name of a file of model/controls."""
        return None

    @property
    def most_views(self) -> int:
        """The most tiles that `views` adds."""
        return 0

    def is_on(self, asked: bool, is_first: bool) -> bool:
        """Whether it goes with a question.

        Args:
            asked: the question's wording speaks of it.
            is_first: it is the conversation's first question.
        """
        return is_first

    def words(self, question: Turn, scene: Scene) -> str:
        """The text of a question it goes with: as it is, or with a list, slots or a mention added."""
        return question.text

    def views(self, scene: Scene) -> Sequence[ExtraView]:
        """Tiles to show behind the pictures."""
        return ()

    def paint(self, pictures: Pictures, boxes: Sequence[BoxArray]) -> Pictures:
        """Altered copies of the F pictures [H, W, 3], if it goes with any question.

        Args:
            boxes: [F, 4] in thousandths of the picture, an array an object.
        """
        return pictures

    def tensors(self, scene: Scene, tiles: Sequence[View]) -> Vision:
        """What its module in model/controls is handed, by name; called for all that shows anything, track or not.

        Samples are put together along the first axis, one after another: give what is about a tile the T tiles as that
        axis (extra ones included), and number tiles from the sample's first.
        """
        return {}


def switched(switch: Switch, asked: bool, is_first: bool) -> bool:
    """Whether a control with such a switch goes with a question: `on` is the first one and those that ask for it."""
    return asked if switch == "question" else switch == "on" and (asked or is_first)


def name_of(kind: type[Control]) -> str:
    """What a control is called: its file's name."""
    return kind.__module__.rpartition(".")[2]


@cache
def control_kinds() -> tuple[type[Control], ...]:
    """The controls of the folder, in the order of their names."""
    modules = [import_module(f"{__package__}.{name}") for name in CONTROLS]
    return tuple(
        kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Control) and kind.__module__ == module.__name__
    )


def default_controls() -> tuple[Control, ...]:
    """Every control as its flags' defaults have it."""
    return tuple(kind() for kind in control_kinds())


def switches(controls: Collection[str]) -> list[str]:
    """The flags of a training run that has these controls of the folder and no other."""
    return [
        word
        for kind in control_kinds()
        for word in (kind.switched_on if name_of(kind) in controls else kind.switched_off).split()
    ]
