"""Tracks as a person or a program hands them over: a file, an array, frames with boxes, or one box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from internvl_chat.constants import BOX_SCALE
from internvl_chat.contracts import Track, TrackFile, TrackRows, UserError
from internvl_chat.data.records.given.given_boxes import track_of_box
from internvl_chat.data.records.given.judged_tracks import read_judged_tracks
from internvl_chat.data.records.given.track_files import FILE_FORMS, read_track_record, tracks_called, tracks_of_file
from internvl_chat.data.records.names import DEFAULT_NAME
from internvl_chat.data.records.reader import read_tracks

# A file; an array [T, 4]; {frame: box}; the record's own form of a track; one box; or what the readers make of these.
GivenTrack = Any
_SOURCE = "the track"


def as_tracks(
    given: GivenTrack,
    *,
    name: str | None = None,
    unit: str | None = None,
    order: str | None = None,
    interpolate: bool | None = None,
    is_for_images: bool = False,
) -> tuple[Track, ...]:
    """The tracks in whatever form they are given.

    Args:
        given: the path of a `.npy`, `.txt` or `.json` file; [T, 4] numbers, a box a frame; {frame: box}; a track, or
            a list of tracks, in the form of a record (`{"name": ..., "boxes": ..., "unit": ..., "order": ...}`); four
            numbers, one box for every frame.
        name: how the prompt calls the object; of a record's or a JSON file's tracks, which have names of their own,
            the one that is meant.
        unit: of arrays, frames and boxes, which nothing else tells: `pixels`, `thousandths` or `unit` (0 to 1).
        order: of their numbers, `xyxy` (None is that) or `xywh`.
        interpolate: whether the boxes of {frame: box} are key frames; if not, the object is absent from the others.
            A track that says one of the three itself may be given no other.
    Raises:
        UserError: it is none of these, or not in the unit and order that are said; or none of its tracks has the name;
            or it is not said whether a few boxes are key frames.
    """
    said = {"unit": unit, "order": order, "interpolate": interpolate}
    if isinstance(given, TrackFile | TrackRows):
        _check_unsaid("a track that was read", _form_of(given), said)
        return (replace(given, name=name or given.name),)
    if isinstance(given, str | Path):
        return _of_file(Path(given), name, said, is_for_images)
    if isinstance(given, Mapping) and "boxes" in given:
        return tracks_called(_of_records({"tracks": [given]}, said, is_for_images, _SOURCE), name, _SOURCE)
    if isinstance(given, list | tuple) and given and isinstance(given[0], Mapping | TrackFile | TrackRows):
        settings: dict[str, Any] = {**said, "is_for_images": is_for_images}
        read = (track for one in given for track in as_tracks(one, **settings))
        return tracks_called(tuple(read), name, _SOURCE)
    form = {"name": name or DEFAULT_NAME, "unit": _stated(unit), "order": order or "xyxy"}
    if isinstance(given, Mapping):
        tracks = [{**form, "boxes": given}]
        return _of_records({"tracks": tracks}, {"interpolate": interpolate}, is_for_images, _SOURCE)
    if interpolate:
        raise UserError("interpolate=True: only the boxes of {frame: box} can be key frames")
    rows = _rows(given)
    if rows.ndim == 1:
        read_tracks({"tracks": [{**form, "boxes": [rows.tolist()]}]}, True, _SOURCE)
        return (track_of_box(rows.tolist(), **form),)
    return read_judged_tracks({"tracks": [{**form, "boxes": rows.tolist()}]}, is_for_images, _SOURCE)


def one_track(
    given: GivenTrack, name: str | None, unit: str | None, order: str | None, interpolate: bool | None = None
) -> Track:
    """The track of the object that is meant, as `as_tracks` reads it.

    Raises:
        UserError: as there, or it holds several objects.
    """
    tracks = as_tracks(given, name=name, unit=unit, order=order, interpolate=interpolate)
    if len(tracks) > 1:
        names = ", ".join(repr(track.name) for track in tracks)
        raise UserError(f"the track holds {len(tracks)} objects, {names}: name= says which one is meant")
    return tracks[0]


def says_its_form(given: GivenTrack) -> bool:
    """Whether a track says itself in which unit and order its numbers are."""
    if isinstance(given, list | tuple) and given:
        return says_its_form(given[0])
    return isinstance(given, TrackFile | TrackRows | str | Path) or (isinstance(given, Mapping) and "boxes" in given)


def _form_of(track: Track) -> Mapping[str, Any]:
    """What a track that was read says of itself; None of what it does not say any more."""
    if isinstance(track, TrackFile):
        return FILE_FORMS[".npy"]
    return {"unit": "pixels" if track.in_pixels else None, "order": None, "interpolate": track.interpolates}


def _stated(unit: str | None) -> str:
    """The unit, which no number tells: pixels read as thousandths are a box beside the object.

    Raises:
        UserError: nobody said it.
    """
    if unit is None:
        raise UserError(
            "a track given as numbers, without their unit: expected unit='pixels', unit='thousandths' (0 to "
            f"{BOX_SCALE} from side to side) or unit='unit' (0 to 1); their order is x1,y1,x2,y2 unless order='xywh'"
        )
    return unit


def _check_unsaid(what: str, own: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """See to it that nothing is said beside a track that it says otherwise.

    Args:
        own: what the track says itself; None stands for something that cannot be compared.
    Raises:
        UserError: something is.
    """
    for key, value in said.items():
        if value is not None and value != own[key]:
            has = f"it has {key} {own[key]!r}" if own[key] is not None else f"it says its {key} itself"
            raise UserError(f"{key}={value!r} beside {what}: {has}; leave {key}= out, or give the numbers as an array")


def _of_file(path: Path, name: str | None, said: Mapping[str, Any], is_for_images: bool) -> tuple[Track, ...]:
    if path.suffix == ".json":
        tracks = _of_records(read_track_record(path), said, is_for_images, str(path))
        return tracks_called(tracks, name, str(path))
    if path.suffix in FILE_FORMS:
        _check_unsaid(str(path), FILE_FORMS[path.suffix], said)
    return tracks_of_file(path, name)


def _of_records(
    record: Mapping[str, Any], said: Mapping[str, Any], is_for_images: bool, source: str
) -> tuple[TrackRows, ...]:
    """The `tracks` of a record; what they leave open is as it is said beside them."""
    told = {key: value for key, value in said.items() if value is not None}
    tracks: Any = record.get("tracks")
    if isinstance(tracks, list):
        tracks = [_completed(track, told, source) if isinstance(track, Mapping) else track for track in tracks]
    return read_judged_tracks({**record, "tracks": tracks}, is_for_images, source)


def _completed(track: Mapping[str, Any], told: Mapping[str, Any], source: str) -> dict[str, Any]:
    whole = {**told, **track}
    _check_unsaid(source, whole, told)
    if isinstance(boxes := whole.get("boxes"), Mapping):
        whole["boxes"] = {str(frame): _numbers(box) for frame, box in boxes.items()}
    elif "boxes" in whole:
        whole["boxes"] = [_numbers(box) for box in boxes] if isinstance(boxes, list | tuple) else _numbers(boxes)
    return whole


def _numbers(box: Any) -> Any:
    """A box, or boxes, of whatever makes numbers as Python's own; anything else as it is."""
    if hasattr(box, "tolist"):
        return box.tolist()
    return [side.item() if hasattr(side, "item") else side for side in box] if isinstance(box, list | tuple) else box


def _rows(given: Any) -> np.ndarray:
    """[T, 4], or [4] for one box.

    Raises:
        UserError: anything else.
    """
    expected = (
        "expected a file (.npy, .txt, .json), an array [T, 4], {frame: box}, a record's own form of a track, or four "
        "numbers"
    )
    if np.ma.is_masked(given):
        raise UserError("a track with masked numbers: fill them, with zeros where the object is absent (filled(0))")
    try:
        rows = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"a track given as {type(given).__name__}: {expected}") from error
    if rows.shape[-1:] != (4,) or rows.ndim > 2 or not len(rows):
        raise UserError(f"a track of shape {list(rows.shape)}: {expected}")
    return rows
