"""Meta JSON and JSONL annotations: reading them, and building them from the IntentVC challenge's captions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import Sample, Turn, UserError
from internvl_chat.data.prompt import PromptForm

# How the prompt calls a category whose folder name is no English word; a meta JSON can add its own `object_names`.
OBJECT_NAMES = {
    "electricfan": "electric fan",
    "racing": "racing car",
    "rubicCube": "rubik's cube",
    "pool": "pool ball",
    "gametarget": "game character",
}


_META_KEYS: dict[str, tuple[type, ...]] = {
    "root": (str,),
    "annotation": (str,),
    "data_augment": (bool,),
    "repeat_time": (int, float),
    "length": (int,),
    "max_dynamic_patch": (int,),
    "object_names": (dict,),
}


@dataclass(frozen=True)
class DatasetEntry:
    """One entry of a meta JSON.

    `root` holds `<category>/<id>/<id>.mp4`; `annotation` is a JSONL file, relative to the working folder or to the
    meta JSON; every line is used `repeat_time` times an epoch (below 1: that share of the lines, the first ones).
    """

    name: str
    root: Path
    annotation: Path
    repeat_time: float = 1.0
    object_names: Mapping[str, str] = field(default_factory=dict)


def read_json(path: Path) -> Any:
    """Parse a JSON file; a `UserError` names the file and the line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: is not valid JSON: {error.msg}") from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file in one step: a reader sees the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _read_meta(path: Path) -> dict[str, dict[str, Any]]:
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: expected an object with one entry a dataset")
    for name, fields in content.items():
        if not isinstance(fields, dict) or not {"root", "annotation"} <= fields.keys():
            raise UserError(f"{path}: entry {name!r} needs 'root' and 'annotation'")
        unknown = sorted(fields.keys() - _META_KEYS.keys())
        if unknown:
            raise UserError(f"{path}: entry {name!r} has unknown keys {unknown}; known are {sorted(_META_KEYS)}")
        for key, value in fields.items():
            if not isinstance(value, _META_KEYS[key]):
                raise UserError(f"{path}: {key!r} of {name!r} is {value!r}: expected {_kinds(_META_KEYS[key])}")
        if fields.get("repeat_time", 1) <= 0:
            raise UserError(f"{path}: 'repeat_time' of {name!r} is {fields['repeat_time']}: expected more than 0")
    return content


def _kinds(types: tuple[type, ...]) -> str:
    words = {str: "a text", int: "a number", float: "a number", bool: "true or false", dict: "an object"}
    return " or ".join(dict.fromkeys(words[kind] for kind in types))


def _root_of(path: Path, name: str, fields: Mapping[str, Any]) -> Path:
    root = Path(fields["root"]).expanduser()
    if not root.is_dir():
        raise UserError(f"{path}: 'root' of {name!r} is no folder: {root}; edit it to where the videos lie")
    return root


def load_roots(path: Path) -> list[Path]:
    """The video folders of a meta JSON; the annotations need not exist yet.

    Raises:
        UserError: not such a file, or a root not found.
    """
    return [_root_of(path, name, fields) for name, fields in _read_meta(path).items()]


def load_meta(path: Path) -> list[DatasetEntry]:
    """Read a meta JSON: `{"name": {"root": ..., "annotation": ..., "repeat_time": 1, ...}, ...}`.

    Raises:
        UserError: not such a file, a key missing or unknown, or `root` or `annotation` not found.
    """
    entries = []
    for name, fields in _read_meta(path).items():
        root, annotation = _root_of(path, name, fields), Path(fields["annotation"]).expanduser()
        if not annotation.is_file() and (path.parent / annotation).is_file():
            annotation = path.parent / annotation
        if not annotation.is_file():
            raise UserError(
                f"{path}: 'annotation' of {name!r} not found: {annotation}; "
                "'python -m internvl_chat annotate' builds it from the challenge's train.json"
            )
        entries.append(
            DatasetEntry(name, root, annotation, fields.get("repeat_time", 1), fields.get("object_names", {}))
        )
    return entries


def category_of(video_id: str) -> str:
    """`airplane-15` -> `airplane`: what stands before the first dash."""
    return video_id.split("-", 1)[0]


def object_name_of(category: str, extra_names: Mapping[str, str] | None = None) -> str:
    """How the prompt calls a category."""
    return {**OBJECT_NAMES, **(extra_names or {})}.get(category, category)


def video_path_of(root: Path, video_id: str) -> Path:
    """Where a video of the challenge lies: `ROOT/airplane/airplane-15/airplane-15.mp4`."""
    return root / category_of(video_id) / video_id / f"{video_id}.mp4"


def boxes_path_of(video_path: Path) -> Path:
    """The box track beside a video."""
    return video_path.with_name("object_bboxes.npy")


def read_samples(entry: DatasetEntry) -> list[Sample]:
    """Read one annotation file; each line becomes a `Sample`.

    Raises:
        UserError: a line is not valid JSON or not a record; the message names file and line.
    """
    try:
        lines = entry.annotation.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{entry.annotation}: cannot be read ({error})") from error
    samples = [
        _read_sample(entry, line, f"{entry.annotation}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not samples:
        raise UserError(f"{entry.annotation}: holds no records")
    whole, part = divmod(entry.repeat_time, 1)
    chosen = samples * int(whole) + samples[: round(part * len(samples))]
    if not chosen:
        raise UserError(f"{entry.annotation}: 'repeat_time' {entry.repeat_time} leaves none of {len(samples)} records")
    return chosen


def _read_sample(entry: DatasetEntry, line: str, source: str) -> Sample:
    try:
        record = json.loads(line)
        turns = tuple(Turn(str(turn["from"]), str(turn["value"])) for turn in record["conversations"])
        sample_id, video = str(record["id"]), Path(record["video"])
    except json.JSONDecodeError as error:
        raise UserError(f"{source}: is not valid JSON: {error.msg}") from error
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{source}: expected 'id', 'video' and 'conversations' with 'from' and 'value', missing {error}"
        ) from error
    category = category_of(video.name)
    video_path = entry.root / category / video
    name = object_name_of(category, entry.object_names)
    return Sample(sample_id, video_path, boxes_path_of(video_path), name, turns, source)


def read_captions(path: Path) -> dict[str, list[str]]:
    """Read captions in the challenge's form: `{"version": ..., "captions": {video id: [caption, ...]}}`."""
    content = read_json(path)
    captions = content.get("captions") if isinstance(content, dict) else None
    if not isinstance(captions, dict) or not all(isinstance(c, list) and c for c in captions.values()):
        raise UserError(f"{path}: expected {{'captions': {{video id: [caption, ...]}}}}")
    return captions


def caption_records(
    captions: Mapping[str, Sequence[str]], form: PromptForm, extra_names: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """One record a caption, as IntentVC's annotation files hold them: id `<video>-<caption index>`."""
    for video_id, texts in captions.items():
        question = form.question(object_name_of(category_of(video_id), extra_names))
        for index, text in enumerate(texts):
            yield {
                "id": f"{video_id}-{index}",
                "video": f"{video_id}/{video_id}.mp4",
                "conversations": [
                    {"from": "human", "value": f"{VIDEO_PLACEHOLDER}\n{question}"},
                    {"from": "gpt", "value": text},
                ],
            }


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records one a line, in one step; returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    count = 0
    with temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    os.replace(temporary, path)
    return count
