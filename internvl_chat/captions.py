"""What a model says of an object in a clip, and how it shows itself.

Shape letters: F frames shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from internvl_chat.boxes import BoxArray
from internvl_chat.contracts import Sample, UserError


@dataclass(frozen=True, eq=False)
class Caption:
    """What the model says of one object in one clip; printed, it is its text.

    Args:
        candidates: all that were asked for, `text` the first.
        frames: [F] numbers of the frames that were shown.
        boxes: [F, 4] x1 y1 x2 y2 in thousandths at these frames, zeros where the object is absent or no track was
            given.
        draw: gives its picture.
    """

    text: str
    candidates: tuple[str, ...]
    sample: Sample
    frames: tuple[int, ...]
    boxes: BoxArray
    draw: Callable[[Caption], Image.Image] | None = None

    def show(self) -> Image.Image:
        """The frames that were shown, with the object's box, and the caption under them; a notebook draws it.

        Raises:
            UserError: the clip cannot be read any more.
        """
        if self.draw is None:
            raise UserError("a caption that no model gave has no picture: Captioner.caption gives one with it")
        return self.draw(self)

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows of it."""
        return _png(self.show()) if self.draw else None

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"{self.sample.object_name or 'clip'}: {self.text}"


@dataclass(frozen=True)
class Following:
    """Whether a caption follows the box: the same clip and question, with nothing but the box exchanged.

    Args:
        own: with the object's own track.
        without: with no box in any frame.
        other: with another object's track; None where none was given.
    """

    own: Caption
    without: Caption
    other: Caption | None = None

    @property
    def changes_without(self) -> bool:
        """Whether taking the box away changes the caption."""
        return self.own.text != self.without.text

    @property
    def changes_with_other(self) -> bool | None:
        """Whether another object's box changes the caption; None where none was given."""
        return None if self.other is None else self.own.text != self.other.text

    def show(self) -> Image.Image:
        """The frames with each of the boxes, and what was said; a notebook draws it."""
        captions = [self.own, self.without, *([self.other] if self.other else [])]
        pictures = [caption.show() for caption in captions]
        sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
        for number, picture in enumerate(pictures):
            sheet.paste(picture, (0, sum(p.height for p in pictures[:number])))
        return sheet

    def _repr_png_(self) -> bytes:
        """What a notebook shows of it."""
        return _png(self.show())

    def __str__(self) -> str:
        lines = [f"own box:       {self.own}", f"no box:        {self.without}"]
        if self.other is not None:
            lines.append(f"other's box:   {self.other}")
        return "\n".join(lines)


def _png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
