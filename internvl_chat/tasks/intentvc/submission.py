"""The IntentVC challenge's files: which ids are asked for, and the submission."""

from __future__ import annotations

import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from internvl_chat.contracts import UserError
from internvl_chat.files import read_json, replacing, write_json
from internvl_chat.scoring.captions.ptb import tokenize

Split = Literal["public", "private"]
SPLITS: tuple[Split, ...] = ("public", "private")
ARCHIVE_NAME = "result.zip"
# Videos 15 to 17 of a category are the public test set, 18 to 20 the private one.
_TEST_NUMBERS = {"public": range(15, 18), "private": range(18, 21)}
LASOT_CATEGORIES = tuple(
    "airplane basketball bear bicycle bird boat book bottle bus car cat cattle chameleon coin crab crocodile cup deer "
    "dog drone electricfan elephant flag fox frog gametarget gecko giraffe goldfish gorilla guitar hand hat helmet "
    "hippo horse kangaroo kite leopard licenseplate lion lizard microphone monkey motorcycle mouse person pig pool "
    "rabbit racing robot rubicCube sepia shark sheep skateboard spider squirrel surfboard swing tank tiger train truck "
    "turtle umbrella volleyball yoyo zebra".split()
)


def challenge_ids(split: Split) -> list[str]:
    """The 210 ids of a test split of the IntentVC challenge."""
    return [f"{category}-{number}" for category in LASOT_CATEGORIES for number in _TEST_NUMBERS[split]]


def result_name(split: Split) -> str:
    """The name of a split's file in a submission."""
    return f"result_{split}.json"


def ids_of_split(root: Path, split: Split) -> list[str]:
    """The video ids of a test split.

    They are those of `sample_result_<split>.json` in the dataset's root, where it lies; otherwise the challenge's
    numbering picks them from the folders.

    Raises:
        UserError: neither gives an id.
    """
    example = root / f"sample_result_{split}.json"
    if example.is_file():
        return read_ids(example)
    ids = [
        f"{category.name}-{number}"
        for category in sorted(path for path in root.iterdir() if path.is_dir())
        for number in _TEST_NUMBERS[split]
        if (category / f"{category.name}-{number}").is_dir()
    ]
    if not ids:
        raise UserError(
            f"{root}: holds no {split} test videos and no {example.name}; which ids are to be captioned? --split names "
            "the part that is there, and --split records asks the records whatever the videos are called"
        )
    return ids


def splits_in(root: Path) -> dict[str, list[str]]:
    """The ids of the test splits that a folder holds: of one's own videos, none."""
    found: dict[str, list[str]] = {}
    for split in SPLITS:
        try:
            found[split] = ids_of_split(root, split)
        except UserError:
            continue
    return found


def read_ids(path: Path) -> list[str]:
    """Video ids from a JSON list, or the keys of a captions file in the challenge's form."""
    expected = f"{path}: expected a JSON list of ids, [\"dog-1\", ...], or {{'captions': {{id: ...}}}}"
    try:
        content = read_json(path)
    except UserError as error:
        raise UserError(f"{expected} ({str(error).removeprefix(f'{path}:')})") from error
    ids = content.get("captions", content) if isinstance(content, dict) else content
    # A file of a single record reads as an object.
    is_line = path.suffix == ".jsonl"
    if is_line or not isinstance(ids, (dict, list)) or not ids or not all(isinstance(i, str) for i in ids):
        raise UserError(expected)
    return list(ids)


def _is_id_list(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(video_id, str) for video_id in value)


def read_ids_of_parts(path: Path, parts: Sequence[Split]) -> dict[Split, list[str]]:
    """The ids of each part from `{'public': [...], 'private': [...]}`; of one part also from what `read_ids` takes."""
    content = read_json(path)
    if isinstance(content, dict) and set(content) <= set(SPLITS) and all(_is_id_list(content.get(p)) for p in parts):
        return {part: list(content[part]) for part in parts}
    if len(parts) > 1:
        raise UserError(f"{path}: expected {{'public': [id, ...], 'private': [id, ...]}}; a plain list needs --part")
    return {parts[0]: read_ids(path)}


def submitted_caption(candidates: Sequence[str]) -> str | None:
    """The first candidate that holds a word, as a submission takes it: one line, without broken characters."""
    for text in candidates:
        whole = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") or c == "\ufffd" else c for c in text)
        if tokenize(whole):
            return " ".join(whole.split())
    return None


def write_results(folder: Path, captions: Mapping[Split, Mapping[str, str]], version: str) -> list[Path]:
    """Write `result_<split>.json` for each split and, in one step, `result.zip` with them all.

    The same captions give the same bytes, the archive's too: its entries carry no date.

    Returns:
        The files, the zip last.
    """
    paths = []
    for split, texts in captions.items():
        paths.append(folder / result_name(split))
        write_json(paths[-1], {"version": version, "captions": dict(texts)})
    archive = folder / ARCHIVE_NAME
    with replacing(archive) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for path in paths:
            entry = zipfile.ZipInfo(path.name)
            entry.external_attr = 0o644 << 16
            file.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return [*paths, archive]
