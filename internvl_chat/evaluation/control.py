"""Does the caption follow the box? Each clip is captioned with its own track and with the other object's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.layout import category_of
from internvl_chat.evaluation.predict import with_boxes_of


@dataclass(frozen=True)
class ControlResult:
    """Captions by id with the right box and with the other object's, and what counts as right."""

    right: Mapping[str, str]
    swapped: Mapping[str, str]
    other_target: Mapping[str, str]
    references: Mapping[str, Sequence[str]]

    def _share(self, hits: Iterable[bool]) -> float:
        values = list(hits)
        return round(sum(values) / len(values), 4) if values else 0.0

    def rates(self) -> dict[str, float | int]:
        """Shares of exact captions.

        `right_box`: with its own box, a reference of the object. `swapped_box`: with the other object's box, a
        reference of that other object. `swapped_box_same_category`: the same where both objects share their category.
        """
        twins = [
            i for i, other in self.other_target.items() if i in self.right and category_of(i) == category_of(other)
        ]

        def obeys(video_id: str) -> bool:
            return self.swapped[video_id] in self.references[self.other_target[video_id]]

        return {
            "right_box": self._share(text in self.references[i] for i, text in self.right.items()),
            "swapped_box": self._share(obeys(i) for i in self.swapped),
            "swapped_box_same_category": self._share(obeys(i) for i in twins),
            "clips": len(self.right),
        }


def measure_control(
    samples: Sequence[Sample],
    other_target: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    caption: Callable[[Sequence[Sample]], Iterable[str]],
) -> ControlResult:
    """Caption each sample with its own box and with that of the other object in the same clip.

    Args:
        other_target: id -> id of the same clip with the other object's box; both must be among `samples`.
        caption: captions samples in order.
    Raises:
        UserError: a sample has no other target, or no references.
    """
    by_id = {sample.id: sample for sample in samples}
    for video_id in by_id:
        if other_target.get(video_id) not in by_id:
            raise UserError(f"{video_id}: no other target of the same clip is known")
        if video_id not in references:
            raise UserError(f"{video_id}: has no reference captions")
    swapped = [with_boxes_of(sample, by_id[other_target[sample.id]]) for sample in samples]
    texts = list(caption([*samples, *swapped]))
    ids = list(by_id)
    return ControlResult(
        dict(zip(ids, texts[: len(ids)], strict=True)),
        dict(zip(ids, texts[len(ids) :], strict=True)),
        {i: other_target[i] for i in ids},
        references,
    )
