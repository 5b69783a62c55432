"""Is a submission what the challenge's server expects? All problems of a `result.zip`, each in words of its own."""

from __future__ import annotations

import json
import lzma
import struct
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.scoring.captions.ptb import tokenize
from internvl_chat.tasks.intentvc.submission import Split, result_name

# 210 captions take 20 kB; what is larger is no submission, and is never unpacked.
MAX_BYTES = 4 * 2**20
NAMED = 5
# What zipfile and its decompressors raise at a damaged archive, or at a method they do not know.
_ZIP_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(repr(item) for item in items[:NAMED]) + more


def validate_submission(path: Path, expected: Mapping[Split, Sequence[str]]) -> list[str]:
    """What is wrong with a submission; nothing, if the list is empty.

    Args:
        path: a zip archive with `result_<split>.json` for each split of `expected`, or one such file ending in
            `.json`: of the only split expected, or of the one that more of its ids belong to.
        expected: the exact ids of each split.
    Raises:
        UserError: the file cannot be read at all.
    """
    try:
        size, archive_like = path.stat().st_size, zipfile.is_zipfile(path)
        if size > MAX_BYTES:
            return [f"{path.name}: has {size:,} bytes, expected at most {MAX_BYTES:,}"]
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if path.suffix == ".json" and not archive_like:
        return _Part(path.name, expected).problems(content)
    if not archive_like:
        return [f"{path.name}: is not a zip archive: it starts with {content[:8]!r}"]
    try:
        with zipfile.ZipFile(path) as archive:
            return _archive_problems(archive, expected)
    except _ZIP_FAULTS as error:
        return [f"{path.name}: is a damaged zip archive ({error})"]


def _archive_problems(archive: zipfile.ZipFile, expected: Mapping[Split, Sequence[str]]) -> list[str]:
    problems: list[str] = []
    known = {result_name("public"), result_name("private")}
    entries = archive.infolist()
    for split, ids in expected.items():
        name = result_name(split)
        matching = [entry for entry in entries if entry.filename == name]
        if len(matching) > 1:
            problems.append(f"{name}: is in the archive {len(matching)} times")
        elif matching:
            content = _unpacked(archive, matching[0])
            problems += [content] if isinstance(content, str) else _Part(name, {split: ids}).problems(content)
        else:
            problems.append(_why_absent(name, [entry.filename for entry in entries]))
            known |= {entry.filename for entry in entries if PurePosixPath(entry.filename).name == name}
    others = [e.filename for e in entries if e.filename not in known and not (e.is_dir() and _holds(e, known))]
    if others:
        problems.append(f"the archive holds what is no part of a submission: {_some(others)}")
    return problems


def _holds(folder: zipfile.ZipInfo, names: Iterable[str]) -> bool:
    return any(name.startswith(folder.filename) for name in names)


def _why_absent(name: str, names: Sequence[str]) -> str:
    nested = [other for other in names if PurePosixPath(other).name == name]
    if nested:
        return f"{name}: lies in a folder, as {nested[0]!r}: zip the files themselves, not their folder"
    alike = [other for other in names if PurePosixPath(other).name.lower() == name]
    if alike:
        return f"{name}: is called {alike[0]!r}, the name must be exact"
    return f"{name}: is missing; the archive holds {_some(names) if names else 'nothing'}"


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes | str:
    """The content of an entry, or what is wrong with it; no more is unpacked than `MAX_BYTES`."""
    if entry.flag_bits & 1:
        return f"{entry.filename}: is protected by a password"
    try:
        with archive.open(entry) as file:
            content = file.read(MAX_BYTES + 1)
    except _ZIP_FAULTS as error:
        return f"{entry.filename}: cannot be unpacked ({error})"
    if len(content) > MAX_BYTES:
        return f"{entry.filename}: unpacks to more than {MAX_BYTES:,} bytes"
    return content


class _Part:
    """One file of a submission, `name` in messages."""

    def __init__(self, name: str, expected: Mapping[Split, Sequence[str]]) -> None:
        self.name, self.expected = name, expected
        self.repeated: list[str] = []

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self.repeated += [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        return dict(pairs)

    def problems(self, content: bytes) -> list[str]:
        return [f"{self.name}: {problem}" for problem in self._problems(content)]

    def _problems(self, content: bytes) -> list[str]:
        if content.startswith(b"\xef\xbb\xbf"):
            return ["starts with a byte order mark: save it as UTF-8 without one"]
        try:
            fields = json.loads(content.decode("utf-8"), object_pairs_hook=self._object)
        except UnicodeDecodeError as error:
            return [f"is not UTF-8: byte {error.start + 1} is {content[error.start : error.start + 1]!r}"]
        except json.JSONDecodeError as error:
            return [f"is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}"]
        except (ValueError, RecursionError) as error:
            return [f"is not usable JSON: {error}"]
        if not isinstance(fields, dict):
            return ["expected an object with 'version' and 'captions'"]
        problems = []
        if self.repeated:
            problems.append(f"keys that stand there more than once: {_some(self.repeated)}")
        if "version" not in fields:
            problems.append("'version' is missing")
        elif not isinstance(fields["version"], str) or not fields["version"].strip():
            problems.append(f"'version' is {fields['version']!r}: expected a text")
        if "captions" not in fields:
            problems.append("'captions' is missing")
        elif not isinstance(fields["captions"], dict):
            problems.append("'captions' is no object {id: caption}")
        else:
            problems += self._id_problems(fields["captions"])
            problems += _caption_problems(fields["captions"])
        return problems

    def _id_problems(self, captions: Mapping[str, Any]) -> list[str]:
        split = max(self.expected, key=lambda s: len(captions.keys() & set(self.expected[s])))
        ids = self.expected[split]
        missing = [i for i in ids if i not in captions]
        extra = [i for i in captions if i not in set(ids)]
        if ids and len(missing) == len(ids) and extra:
            return [f"holds none of the {len(ids)} {split} ids but {_some(extra)}: is it the file of another part?"]
        problems = []
        if missing:
            problems.append(f"ids missing, {len(missing)} of {len(ids)} {split} ones: {_some(missing)}")
        if extra:
            problems.append(f"ids not asked for: {_some(extra)}")
        return problems


def _fault_of(caption: Any) -> str | None:
    if not isinstance(caption, str):
        return "captions that are no text"
    if not caption.strip():
        return "empty captions"
    if any(unicodedata.category(c) == "Cs" or c == "\ufffd" for c in caption):
        return "captions with broken characters"
    if any(unicodedata.category(c) == "Cc" for c in caption):
        return "captions with line breaks, tabs or control characters"
    return None if tokenize(caption) else "captions without a word"


def _caption_problems(captions: Mapping[str, Any]) -> list[str]:
    faults: dict[str, list[str]] = {}
    for video_id, caption in captions.items():
        fault = _fault_of(caption)
        if fault:
            faults.setdefault(fault, []).append(video_id)
    return [f"{fault}: {_some(ids)}" for fault, ids in faults.items()]
