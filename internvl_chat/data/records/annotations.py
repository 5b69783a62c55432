"""Meta JSON and JSONL annotations: reading them, and building them from the IntentVC challenge's captions."""

from __future__ import annotations

import logging
import os
import random
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.prompts.wordings import question_about
from internvl_chat.data.records.intentvc import boxes_path_of as boxes_path_of
from internvl_chat.data.records.intentvc import category_of, object_name_of
from internvl_chat.data.records.intentvc import video_path_of as video_path_of
from internvl_chat.data.records.names import check_name
from internvl_chat.data.records.reader import RecordReader
from internvl_chat.files import parse_json, read_json, read_text, split_records

logger = logging.getLogger(__name__)

_META_KEYS: dict[str, tuple[type, ...]] = {
    "root": (str,),
    "annotation": (str,),
    "data_augment": (bool,),
    "repeat_time": (int, float),
    "length": (int,),
    "max_dynamic_patch": (int,),
    "object_names": (dict,),
    "weight": (int, float),
    "every_frame": (bool,),
    "draw": (int,),
    "allow_outside_root": (bool,),
    "boxes_root": (str,),
}
# More repeats, tiles or weight than this is a slip, and would take all memory.
_MOST = 10_000


@dataclass(frozen=True)
class DatasetEntry:
    """One entry of a meta JSON.

    Args:
        root: the folder that paths in its records are relative to, and may not leave unless `allow_outside_root`;
            relative to the meta JSON, or if that has none there, to the working folder.
        annotation: a JSONL file or a JSON list, relative as the root is.
        repeat_time: every line is used so many times an epoch; below 1 that share of the lines, the first ones.
        object_names: how the prompt calls categories, beside `OBJECT_NAMES`.
        data_augment: whether training alters its pictures.
        max_dynamic_patch: most tiles of its images; None leaves it to the run.
        length: how many lines the file should have; None is unknown.
        weight: share of the mix, against the other entries' weights; None leaves it to the numbers of lines.
        draw: so many of its records are used, drawn by its name: the same ones in every run; None is all.
        every_frame: all frames of its videos are shown, whatever the run's number and sampling.
        boxes_root: where `generate_npy_bboxes.py --out` wrote the boxes of its videos; None is beside them.
    """

    name: str
    root: Path
    annotation: Path
    repeat_time: float = 1.0
    object_names: Mapping[str, str] = field(default_factory=dict)
    data_augment: bool = False
    max_dynamic_patch: int | None = None
    length: int | None = None
    weight: float | None = None
    every_frame: bool = False
    draw: int | None = None
    allow_outside_root: bool = False
    boxes_root: Path | None = None

    def boxes_path(self, video_path: Path) -> Path:
        """Where the boxes of one of its videos lie."""
        return boxes_path_of(video_path, self.root, self.boxes_root)

    def reader(self) -> RecordReader:
        """What reads its records."""
        return RecordReader(
            self.root,
            object_names=self.object_names,
            max_dynamic_patch=self.max_dynamic_patch,
            data_augment=self.data_augment,
            every_frame=self.every_frame,
            allow_outside_root=self.allow_outside_root,
            boxes_root=self.boxes_root,
        )


def _read_meta(path: Path) -> dict[str, dict[str, Any]]:
    # A list, or an object a line, is what a meta JSON names.
    content = None if path.suffix == ".jsonl" else read_json(path)
    if isinstance(content, list) or content is None:
        raise UserError(
            f"{path}: is no meta JSON but may be a file of records: expected one that names it, as in "
            f'{{"mine": {{"root": "VIDEOS", "annotation": "{path.name}"}}}}'
        )
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: expected an object with one entry a dataset")
    return content


def _check_fields(path: Path, name: str, fields: Any) -> None:
    if not isinstance(fields, dict) or not {"root", "annotation"} <= fields.keys():
        raise UserError(f"{path}: entry {name!r} needs 'root' and 'annotation'")
    unknown = sorted(fields.keys() - _META_KEYS.keys())
    if unknown:
        raise UserError(f"{path}: entry {name!r} has unknown keys {unknown}; known are {sorted(_META_KEYS)}")
    for key, value in fields.items():
        # True is an `int` to Python.
        if not isinstance(value, _META_KEYS[key]) or (isinstance(value, bool) and bool not in _META_KEYS[key]):
            raise UserError(f"{path}: {key!r} of {name!r} is {value!r}: expected {_kinds(_META_KEYS[key])}")
    if fields.get("draw", 1) < 1:
        raise UserError(f"{path}: 'draw' of {name!r} is {fields['draw']}: expected 1 or more")
    for key in ("repeat_time", "weight", "max_dynamic_patch"):
        if not 0 < fields.get(key, 1) <= _MOST:
            raise UserError(f"{path}: {key!r} of {name!r} is {fields[key]}: expected more than 0, at most {_MOST}")
    if not all(isinstance(text, str) for text in fields.get("object_names", {}).values()):
        raise UserError(f"{path}: 'object_names' of {name!r}: expected a text for each category")
    for text in fields.get("object_names", {}).values():
        check_name(text, f"{path}: 'object_names' of {name!r}")


def _kinds(types: tuple[type, ...]) -> str:
    words = {str: "a text", int: "a number", float: "a number", bool: "true or false", dict: "an object"}
    return " or ".join(dict.fromkeys(words[kind] for kind in types))


def _beside(path: Path, given: str) -> Path:
    """A path that the meta JSON at `path` names: relative to that file if it is there, else to the working folder."""
    named = Path(os.path.expanduser(given))
    return path.parent / named if os.path.exists(path.parent / named) else named


def _root_of(path: Path, name: str, fields: Any) -> Path:
    _check_fields(path, name, fields)
    root = _beside(path, fields["root"])
    if not os.path.isdir(root):
        raise UserError(f"{path}: 'root' of {name!r} is no folder: {root}; edit it to where the videos lie")
    return root


def load_roots(path: Path) -> list[Path]:
    """The video folders of a meta JSON; the annotations need not exist yet.

    Raises:
        UserError: not such a file, or a root not found.
    """
    return [_root_of(path, name, fields) for name, fields in _read_meta(path).items()]


def entry_of(path: Path, name: str, fields: Any) -> DatasetEntry:
    """One entry of the meta JSON at `path`.

    Raises:
        UserError: a key missing or unknown, or `root` or `annotation` not found.
    """
    root, annotation = _root_of(path, name, fields), _beside(path, fields["annotation"])
    if not os.path.isfile(annotation):
        raise UserError(
            f"{path}: 'annotation' of {name!r} not found: {annotation}; "
            "'python -m internvl_chat annotate' builds it from the challenge's train.json"
        )
    settings = {key: value for key, value in fields.items() if key not in ("root", "annotation")}
    if "boxes_root" in settings:
        settings["boxes_root"] = _beside(path, settings["boxes_root"])
        if not settings["boxes_root"].is_dir():
            raise UserError(
                f"{path}: 'boxes_root' of {name!r} is no folder: {settings['boxes_root']}; "
                "'generate_npy_bboxes.py --root ROOT --out FOLDER' writes one"
            )
    return DatasetEntry(name, root, annotation, **settings)


def load_meta(path: Path) -> list[DatasetEntry]:
    """Read a meta JSON: `{"name": {"root": ..., "annotation": ..., "repeat_time": 1, ...}, ...}`.

    Raises:
        UserError: not such a file, a key missing or unknown, or `root` or `annotation` not found.
    """
    entries = [entry_of(path, name, fields) for name, fields in _read_meta(path).items()]
    weighted = [entry.name for entry in entries if entry.weight is not None]
    if weighted and len(weighted) < len(entries):
        raise UserError(f"{path}: {weighted[0]!r} has a 'weight' and others have none: give all of them one")
    return entries


def read_samples(entry: DatasetEntry) -> list[Sample]:
    """Read one annotation file; each record becomes a `Sample`, drawn, repeated or cut off as the entry says.

    Raises:
        UserError: a record is not valid JSON or not a record; the message names file and line.
    """
    reader = entry.reader()
    samples = []
    for record in split_records(read_text(entry.annotation), entry.annotation):
        source = f"{entry.annotation}:{record.line}"
        samples.append(reader.read(parse_json(record.text, source), source))
    if not samples:
        raise UserError(f"{entry.annotation}: holds no records")
    if entry.length not in (None, len(samples)):
        logger.warning(
            "%s holds %d records, 'length' of %r says %d", entry.annotation, len(samples), entry.name, entry.length
        )
    samples = _drawn(samples, entry)
    chosen = _cycled(samples, round(entry.repeat_time * len(samples)))
    if not chosen:
        raise UserError(f"{entry.annotation}: 'repeat_time' {entry.repeat_time} leaves none of {len(samples)} records")
    return chosen


def read_mix(entries: Sequence[DatasetEntry]) -> list[Sample]:
    """The samples of an epoch, of all entries.

    With weights the epoch is as long as without, and each entry has its weight's share of it: its samples are cut
    off or begun again.

    Raises:
        UserError: an annotation cannot be used, or a weight leaves an entry without a sample.
    """
    parts = [read_samples(entry) for entry in entries]
    weights = [entry.weight for entry in entries if entry.weight is not None]
    if weights:
        num_samples = sum(len(part) for part in parts)
        counts = [round(num_samples * weight / sum(weights)) for weight in weights]
        for entry, count in zip(entries, counts, strict=True):
            if not count:
                raise UserError(f"'weight' {entry.weight} of {entry.name!r} leaves none of its records in the mix")
        parts = [_cycled(part, count) for part, count in zip(parts, counts, strict=True)]
    return [sample for part in parts for sample in part]


def _drawn(samples: list[Sample], entry: DatasetEntry) -> list[Sample]:
    """The records that an entry draws, in the file's order."""
    if entry.draw is None:
        return samples
    if entry.draw > len(samples):
        raise UserError(f"{entry.annotation}: holds {len(samples)} records, 'draw' of {entry.name!r} is {entry.draw}")
    # Seeded with a text, Python's generator gives the same numbers on every machine and in every version.
    return [samples[i] for i in sorted(random.Random(entry.name).sample(range(len(samples)), entry.draw))]


def _cycled(samples: list[Sample], count: int) -> list[Sample]:
    whole, part = divmod(count, len(samples))
    return samples * whole + samples[:part]


def read_captions(path: Path) -> dict[str, list[str]]:
    """Read lists of captions in the challenge's form, `{"version": ..., "captions": {video id: [caption, ...]}}`.

    The object inside `captions` will do alone.

    Raises:
        UserError: not such a file, or an id without captions.
    """
    content = read_json(path)
    captions = content.get("captions", content) if isinstance(content, dict) else None
    if not isinstance(captions, dict) or not captions:
        raise UserError(
            f"{path}: expected {{'captions': {{video id: a list of captions}}}}, or what stands inside 'captions'"
        )
    for video_id, texts in captions.items():
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{path}: {video_id!r}: expected a list of captions, got {reprlib.repr(texts)}")
    return captions


def caption_records(
    captions: Mapping[str, Sequence[str]], controls: frozenset[str], extra_names: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """One record a caption, as IntentVC's annotation files hold them: id `<video>-<caption index>`.

    `controls` are those that the question speaks of, a key of `WORDINGS`.
    """
    for video_id, texts in captions.items():
        question = question_about(object_name_of(category_of(video_id), extra_names), controls)
        for index, text in enumerate(texts):
            yield {
                "id": f"{video_id}-{index}",
                "video": f"{video_id}/{video_id}.mp4",
                "conversations": [
                    {"from": "human", "value": f"{VIDEO_PLACEHOLDER}\n{question}"},
                    {"from": "gpt", "value": text},
                ],
            }
