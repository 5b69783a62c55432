"""Reading and writing files: written in one step or not at all, read within bounds, a fault told by file and line."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from internvl_chat.contracts import UserError

BYTE_ORDER_MARK = "\ufeff"

# Far beyond any real file: a track of 100,000 boxes takes 3 MB, and a record nests four deep.
MAX_FILE_BYTES = 2**31
MAX_RECORD_CHARACTERS = 2**24
MAX_JSON_DEPTH = 32
# Faults that a message lists; the rest are counted.
MOST_LISTED = 20
_BYTES_AT_ONCE = 2**20

_HALF_PAIR = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class RawRecord:
    """One record as it is written: the line it begins at, from 1, and its text."""

    line: int
    text: str


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _members(node: Any) -> Iterable[Any]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def keys_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON from its members, for `json.loads`.

    Raises:
        ValueError: it names a key twice; JSON's readers would take the last one without a word.
    """
    content = dict(members)
    if len(content) < len(members):
        twice = next(key for key in content if sum(name == key for name, _ in members) > 1)
        raise ValueError(f"an object names {twice!r} twice")
    return content


def _loads(text: str) -> Any:
    content = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=keys_once)
    level = [content]
    for _ in range(MAX_JSON_DEPTH + 1):
        level = [member for node in level for member in _members(node)]
    if level:
        raise ValueError(f"it nests deeper than {MAX_JSON_DEPTH}")
    return content


def parse_json(text: str, source: str) -> Any:
    """Parse one JSON value; `source` is `file:line` of its first line.

    Raises:
        UserError: it is not valid JSON (NaN and Infinity are not), names a key twice, or is too long or too deeply
            nested to be a record.
    """
    if len(text) > MAX_RECORD_CHARACTERS:
        raise UserError(f"{source}: has {len(text)} characters, expected at most {MAX_RECORD_CHARACTERS} a record")
    try:
        return _loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{source}: is not valid JSON: {error.msg} at character {error.pos + 1}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: is not usable JSON: {error}") from error


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without its byte order mark.

    Raises:
        UserError: the file cannot be read, is larger than any annotation, or is not UTF-8.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is no file")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UserError(f"{path}: has {size} bytes, expected at most {MAX_FILE_BYTES}: split the file")
        return path.read_bytes().decode("utf-8").removeprefix(BYTE_ORDER_MARK)
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: is not UTF-8 text ({error.reason}); save the file as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def lookalike(path: Path) -> str:
    """How a message about a path that is not there ends, where something like it is; empty where nothing is.

    Names that look alike differ in Unicode's normal form, as macOS and Linux write them, in case, or in `\\` for `/`.
    """
    if "\\" in str(path):
        return "; folders are divided by '/', and it has '\\'"
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    name = _plain_names(missing.parent).get(_plain(missing.name)) if missing.parent.is_dir() else None
    if name in (None, missing.name):
        return ""
    same = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", missing.name)
    return f"; {missing.parent} holds {name!a}, which differs in {'its Unicode form' if same else 'case'}"


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@lru_cache(maxsize=16)
def _plain_names(folder: Path) -> dict[str, str]:
    """The names in a folder by what is the same for all that look alike."""
    return {_plain(name): name for name in os.listdir(folder)}


def take_any_text() -> None:
    """A terminal that cannot show a character gets its escape, in place of a command that ends for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON that a UTF-8 file can hold: half of a character pair stays escaped, everything else is written out."""
    text = json.dumps(content, ensure_ascii=False, indent=indent)
    return _HALF_PAIR.sub(lambda half: f"\\u{ord(half.group()):04x}", text)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what is to become `path`: it takes its place in one step, or not at all if writing fails.

    A reader, and whoever comes after a kill, sees the old content or the new one, never half of it. Its folder is made.
    Others may read it as they may read any new file, whatever the library that writes it thinks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Where to write the files of what is to become the folder `path`, which is not there: all of them, or none.

    What a kill leaves half done is cleared away by `begin_folder`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def begin_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make a folder of results that can be gone on with, or see that the one there was begun with the same settings.

    Raises:
        UserError: the folder holds something else, was begun with other settings, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file: give a new folder")
    noted = folder / "settings.json"
    # As a file gives them back: a tuple is a list there.
    wanted = json.loads(json_text(settings))
    if noted.is_file():
        before = read_json(noted)
        changed = sorted(key for key in wanted if not isinstance(before, dict) or before.get(key) != wanted[key])
        if changed:
            raise UserError(f"{folder}: was begun with another {' and '.join(changed)}: give a new folder")
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty and was not begun by this command: give a new folder")
    write_json(noted, settings)
    for left_over in folder.rglob(".*.tmp"):
        if left_over.is_dir():
            shutil.rmtree(left_over)
        else:
            left_over.unlink()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        UserError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while part := file.read(_BYTES_AT_ONCE):
                digest.update(part)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file in one step.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file in one step.

    Raises:
        UserError: it cannot be written there.
    """
    write_text(path, json_text(content, indent=1) + "\n")


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records one a line, in one step; returns how many."""
    count = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json_text(record) + "\n")
            count += 1
    return count


def read_json(path: Path) -> Any:
    """Parse a JSON file; a `UserError` names the file and the line."""
    text = read_text(path)
    try:
        return _loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: is not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not usable JSON: {error}") from error


def split_records(text: str, path: Path) -> Iterator[RawRecord]:
    """The records of a `.jsonl` file, or of a `.json` file that holds a list; blank lines are left out.

    Lines end at line feeds alone: JSON may hold U+2028 and its like inside a text.

    Raises:
        UserError: a list that is not valid JSON, or a JSON object over several lines.
    """
    if path.suffix == ".json" and text.lstrip().startswith("["):
        yield from _list_elements(text, path)
        return
    if path.suffix == ".json" and _is_one_object(text):
        raise UserError(
            f"{path}: is one JSON object, expected records: a list, or one a line; a meta JSON names files of records, "
            "and convert-data makes them of COCO's"
        )
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield RawRecord(number, line)


def _is_one_object(text: str) -> bool:
    """Whether a text is an object over several lines, and not one a line."""
    first, _, rest = text.strip().partition("\n")
    return first.startswith("{") and bool(rest) and not _is_json(first) and _is_json(text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _list_elements(text: str, path: Path) -> Iterator[RawRecord]:
    decoder = json.JSONDecoder()
    at, counted, line = text.index("[") + 1, 0, 1
    closing = ",]"
    while True:
        at = _end_of_space(text, at)
        if text[at : at + 1] == "]" and "]" in closing:
            if (at := _end_of_space(text, at + 1)) < len(text):
                line = 1 + text.count("\n", 0, at)
                raise UserError(f"{path}:{line}: goes on behind the list's end: expected one list of records a file")
            return
        line, counted = line + text.count("\n", counted, at), at
        try:
            _, stop = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise UserError(f"{path}:{line}: is not valid JSON from here on: {reason}") from error
        yield RawRecord(line, text[at:stop])
        at = _end_of_space(text, stop)
        closing = text[at : at + 1]
        if closing not in (",", "]"):
            raise UserError(f"{path}:{line}: is not valid JSON: expected ',' or ']' after this record")
        at += closing == ","


def _end_of_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def raise_faults(faults: Sequence[str]) -> None:
    """Raise all of them as one `UserError`, if there are any."""
    if faults:
        more = [f"... and {len(faults) - MOST_LISTED} more"] if len(faults) > MOST_LISTED else []
        raise UserError("\n".join([*faults[:MOST_LISTED], *more]))
