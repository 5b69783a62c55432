"""Does the caption follow the box? Clips captioned with their own track, with another object's, and with worse ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from internvl_chat.boxes import BoxArray
from internvl_chat.constants import BOX_SCALE
from internvl_chat.contracts import Track, TrackRows, UserError
from internvl_chat.data.records.tracks import every_box_of
from internvl_chat.inference.requests import Ask, with_tracks
from internvl_chat.scoring.control_record import OWN, Captions, Point, Probe
from internvl_chat.tasks.control.perturb import PERTURBATIONS, perturbed

# What each probe does to the track, and by how much: 0 is the own track, shown with every curve.
LEVELS: dict[str, tuple[float, ...]] = {
    "swap": (1.0,),
    "null": (1.0,),
    "jitter": (0.25, 0.5, 1.0, 2.0),
    "shrink": (0.25, 0.5, 0.75, 0.9),
    "absent": (0.25, 0.5, 0.75),
}
# What curves show of a probe's captions.
METRIC = "CIDEr (no Java)"

References = Mapping[str, Sequence[str]]
Score = Callable[[Captions, References], float]


def probes_of(names: Iterable[str]) -> list[Probe]:
    """Each name's levels, after the own track."""
    return [OWN, *(Probe(name, level) for name in dict.fromkeys(names) for level in LEVELS[name])]


def probe_asks(asks: Sequence[Ask], probes: Sequence[Probe], other: Mapping[str, Ask]) -> dict[Probe, list[Ask]]:
    """What is asked in each probe; nothing but the track differs.

    Args:
        other: id -> the ask about the other object of the same clip, where there is one; `swap` is asked of those.
    """
    own_boxes = {ask.id: _boxes_of(ask) for ask in asks if any(probe.name in PERTURBATIONS for probe in probes)}
    asked: dict[Probe, list[Ask]] = {}
    for probe in probes:
        asked[probe] = []
        for ask in asks:
            if probe == OWN:
                asked[probe].append(ask)
            elif probe.name in PERTURBATIONS:
                worse = [
                    track if boxes is None else _as_rows(track.name, perturbed(probe.name, probe.level, boxes, ask.id))
                    for track, boxes in zip(ask.samples[0].tracks, own_boxes[ask.id], strict=True)
                ]
                asked[probe].append(_with_tracks(probe, ask, [worse] * len(ask.samples)))
            elif ask.id in other:
                asked[probe].append(_with_tracks(probe, ask, [sample.tracks for sample in other[ask.id].samples]))
    return asked


def _boxes_of(ask: Ask) -> list[BoxArray | None]:
    """The boxes [T, 4] of each of its tracks; None of those that cannot be read."""
    sample, found = ask.samples[0], list[BoxArray | None]()
    for track in sample.tracks:
        try:
            found.append(every_box_of(sample, track))
        except UserError:
            # Predicting names it, and goes on with the others.
            found.append(None)
    return found


def _as_rows(name: str, boxes: BoxArray) -> TrackRows:
    """A box [T, 4] for each picture as a track."""
    return TrackRows(name, np.arange(len(boxes), dtype=np.float64), boxes / BOX_SCALE, is_complete=True)


def _with_tracks(probe: Probe, ask: Ask, tracks: Sequence[Sequence[Track]]) -> Ask:
    samples = zip(ask.samples, tracks, strict=True)
    return Ask(probe.ask_id(ask.id), tuple(with_tracks(sample, theirs) for sample, theirs in samples))


@dataclass(frozen=True)
class ControlResult:
    """Captions by probe and id, and what counts as right; `object_names` says by id how prompts call the object."""

    captions: Mapping[Probe, Captions]
    other_target: Mapping[str, str]
    references: References
    metric: str = ""
    score: Score | None = field(default=None, compare=False)
    object_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def right(self) -> Captions:
        """Captions with the own track."""
        return self.captions[OWN]

    @property
    def swapped(self) -> Captions:
        """Captions with the other object's track."""
        return self.captions.get(Probe("swap", 1.0), {})

    def rates(self) -> dict[str, float | int | None]:
        """Shares of exact captions; None where there is nothing to take a share of.

        `right_box`: with its own box, a reference of the object. `swapped_box`: with the other object's box, a
        reference of that other object. `swapped_box_same_category`: the same where both objects are called alike, so
        that the name in the prompt tells nothing.
        """
        judged = [i for i in self.swapped if self.other_target[i] in self.references]
        names = self.object_names
        twins = [i for i in judged if i in names and names[i] == names.get(self.other_target[i])]

        def obeys(video_id: str) -> bool:
            return self.swapped[video_id] in self.references[self.other_target[video_id]]

        return {
            "right_box": _share(text in self.references[i] for i, text in self.right.items() if i in self.references),
            "swapped_box": _share(obeys(i) for i in judged),
            "swapped_box_same_category": _share(obeys(i) for i in twins),
            "clips": len(self.right),
        }

    def points(self) -> list[Point]:
        """The outcome of every probe, the own track first."""
        return [self._point(probe, texts) for probe, texts in self.captions.items() if texts]

    def _point(self, probe: Probe, texts: Captions) -> Point:
        own = {i: self.references[i] for i in texts if i in self.references}
        others = {i: self.other_target[i] for i in texts if i in self.other_target}
        other = {i: self.references[o] for i, o in others.items() if o in self.references}
        return Point(
            probe.name,
            probe.level,
            len(texts),
            _share(text != self.right[i] for i, text in texts.items() if i in self.right) or 0.0,
            _share(texts[i] in truth for i, truth in own.items()),
            _share(texts[i] in truth for i, truth in other.items()),
            self._scored(texts, own),
            self._scored(texts, other),
            self._scored(self.right, own),
            self._scored(self.right, other),
        )

    def _scored(self, texts: Captions, references: References) -> float | None:
        if self.score is None or not references or not references.keys() <= texts.keys():
            return None
        return round(self.score({i: texts[i] for i in references}, references), 4)

    def to_json(self) -> dict[str, object]:
        """Rates, curves and every caption."""
        return {
            **self.rates(),
            "metric": self.metric,
            "points": [asdict(point) for point in self.points()],
            "captions": {f"{probe.name} {probe.level:g}": dict(texts) for probe, texts in self.captions.items()},
        }

    def table(self) -> str:
        """The curves as text: one line a point, with the difference to the own track's score."""
        points = self.points()
        own = points[0]
        lines = [f"{'probe':8}{'level':>6}{'clips':>7}{'changed':>9}{'own':>7}{'other':>7}  {self.metric} own, other"]
        for point in points:
            rates = "".join(f"{'-' if v is None else f'{v:.2f}':>7}" for v in (point.own, point.other))
            scores = ", ".join(
                _difference(value, None if point is own else base)
                for value, base in ((point.score_own, point.base_own), (point.score_other, point.base_other))
            )
            bar = "#" * round(20 * (point.own or 0.0))
            lines.append(
                f"{point.probe:8}{point.level:6.2f}{point.clips:7}{point.changed:9.2f}{rates}  {scores}  {bar}".rstrip()
            )
        return "\n".join(lines) + "\n"


def _difference(value: float | None, base: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if base is None else f"{value:.2f} ({value - base:+.2f})"


def _share(hits: Iterable[bool]) -> float | None:
    values = list(hits)
    return round(sum(values) / len(values), 4) if values else None


def check_targets(ids: Sequence[str], other_target: Mapping[str, str], references: References, swap: bool) -> None:
    """Find out before anything is captioned whether the probes can be asked, and judged where there are references.

    Raises:
        UserError: `swap` is asked for, and no clip has a second object, or one of the two has no references while
            others have.
    """
    pairs = {i: other_target[i] for i in ids if i in other_target}
    if swap and not pairs:
        raise UserError(
            "swap: no clip is known to have a second object. Records of the same video with different tracks are found "
            'by themselves; --other_target FILE names pairs, {"dog-1": "dog-2", "dog-2": "dog-1"}; and --probes null '
            "jitter shrink absent need no second object"
        )
    for video_id in sorted({*pairs, *pairs.values()}) if swap and references else []:
        if video_id not in references:
            raise UserError(
                f"{video_id}: has no reference captions, so that swapping its box cannot be judged: add them to "
                "--references, or leave the id out with --ids"
            )
