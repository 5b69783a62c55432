"""A valid submission passes; each way to break one is told in words of its own."""

from __future__ import annotations

import json
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from internvl_chat.contracts import UserError
from internvl_chat.tasks.intentvc.check_submission import MAX_BYTES, validate_submission
from internvl_chat.tasks.intentvc.submission import Split, challenge_ids, result_name, write_results

EXPECTED: dict[Split, list[str]] = {
    "public": ["cat-15", "cat-16", "dog-15", "dog-16"],
    "private": ["cat-18", "dog-18", "dog-19"],
}
PUBLIC, PRIVATE = "result_public.json", "result_private.json"


def valid(split: Split) -> dict[str, Any]:
    return {"version": "v1", "captions": {i: f"a {i.split('-')[0]} – 狗" for i in EXPECTED[split]}}


def contents(**changes: Any) -> dict[str, bytes]:
    """The files of a valid archive, with changes by key: the object of the public file, or a caption of its."""
    public = valid("public")
    for key, value in changes.items():
        if key.startswith("caption_"):
            public["captions"]["dog-15"] = value
        else:
            public[key] = value
    return {PUBLIC: json.dumps(public).encode(), PRIVATE: json.dumps(valid("private")).encode()}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def without(key: str) -> dict[str, bytes]:
    public = valid("public")
    del public[key]
    return {**contents(), PUBLIC: json.dumps(public).encode()}


def renamed(old: str, new: str) -> dict[str, bytes]:
    return {new if name == old else name: content for name, content in contents().items()}


def raw(content: bytes) -> dict[str, bytes]:
    return {**contents(), PUBLIC: content}


def captions(**texts: Any) -> dict[str, bytes]:
    return contents(captions={**valid("public")["captions"], **{i.replace("_", "-"): t for i, t in texts.items()}})


REPEATED = b'{"version": "v1", "captions": {"cat-15": "a", "cat-16": "b", "dog-15": "c", "dog-16": "d", "dog-15": "e"}}'

BROKEN: dict[str, tuple[dict[str, bytes], str]] = {
    "no file": ({}, f"{PUBLIC}: is missing; the archive holds nothing"),
    "one file": ({PUBLIC: contents()[PUBLIC]}, f"{PRIVATE}: is missing; the archive holds '{PUBLIC}'"),
    "another name": (renamed(PUBLIC, "public.json"), f"{PUBLIC}: is missing; the archive holds 'public.json'"),
    "another case": (renamed(PUBLIC, "Result_public.JSON"), f"{PUBLIC}: is called 'Result_public.JSON'"),
    "a folder": (
        {f"result/{n}": c for n, c in contents().items()},
        f"{PUBLIC}: lies in a folder, as 'result/{PUBLIC}'",
    ),
    "one file more": ({**contents(), ".DS_Store": b"x"}, "the archive holds what is no part of .* '.DS_Store'"),
    "empty": (raw(b""), f"{PUBLIC}: is not valid JSON: line 1, column 1"),
    "not JSON": (raw(b'{"version": "v1",\n "captions": }'), f"{PUBLIC}: is not valid JSON: line 2, column 14"),
    "not UTF-8": (raw("{'é': 1}".encode("latin-1")), f"{PUBLIC}: is not UTF-8: byte 3 is"),
    "UTF-16": (raw(json.dumps(valid("public")).encode("utf-16")), f"{PUBLIC}: is not UTF-8: byte 1 is"),
    "a byte order mark": (raw(b"\xef\xbb\xbf" + contents()[PUBLIC]), f"{PUBLIC}: starts with a byte order mark"),
    "nested without end": (raw(b"[" * 200_000), f"{PUBLIC}: is not usable JSON"),
    "a list": (raw(b'["v1"]'), f"{PUBLIC}: expected an object with 'version' and 'captions'"),
    "a bomb": (raw(b" " * (MAX_BYTES + 1)), f"{PUBLIC}: unpacks to more than"),
    "no version": (without("version"), f"{PUBLIC}: 'version' is missing"),
    "a version that is no text": (contents(version=1.0), f"{PUBLIC}: 'version' is 1.0: expected a text"),
    "an empty version": (contents(version=" "), f"{PUBLIC}: 'version' is ' ': expected a text"),
    "no captions": (without("captions"), f"{PUBLIC}: 'captions' is missing"),
    "captions as a list": (contents(captions=["a cat"]), f"{PUBLIC}: 'captions' is no object"),
    "missing ids": (
        contents(captions={"cat-16": "a"}),
        "ids missing, 3 of 4 public ones: 'cat-15', 'dog-15', 'dog-16'",
    ),
    "one id more": (captions(dog_17="a dog"), f"{PUBLIC}: ids not asked for: 'dog-17'"),
    "an id in another case": (captions(Dog_15="a dog"), f"{PUBLIC}: ids not asked for: 'Dog-15'"),
    "the other part": (contents(captions=valid("private")["captions"]), "none of the 4 public ids .*another part"),
    "an id twice": (raw(REPEATED), f"{PUBLIC}: keys that stand there more than once: 'dog-15'"),
    "an empty caption": (captions(dog_15=""), f"{PUBLIC}: empty captions: 'dog-15'"),
    "a blank caption": (captions(dog_15=" \t"), f"{PUBLIC}: empty captions: 'dog-15'"),
    "no caption": (captions(dog_15=None), f"{PUBLIC}: captions that are no text: 'dog-15'"),
    "a list of captions": (captions(dog_15=["a dog"]), f"{PUBLIC}: captions that are no text: 'dog-15'"),
    "nothing but marks": (captions(dog_15="..."), f"{PUBLIC}: captions without a word: 'dog-15'"),
    "a line break": (captions(dog_15="a dog\nruns"), f"{PUBLIC}: captions with line breaks"),
    "half a character": (captions(dog_15="a dog \ud83d"), f"{PUBLIC}: captions with broken characters"),
    "a lost character": (captions(dog_15="a dog\ufffds tail"), f"{PUBLIC}: captions with broken characters"),
}


def test_what_we_write_is_valid(tmp_path: Path) -> None:
    parts: dict[Split, dict[str, str]] = {split: valid(split)["captions"] for split in EXPECTED}
    *files, archive = write_results(tmp_path, parts, "v1")
    assert validate_submission(archive, EXPECTED) == []
    for split, file in zip(EXPECTED, files, strict=True):
        assert validate_submission(archive, {split: EXPECTED[split]}) == []
        assert validate_submission(file, {split: EXPECTED[split]}) == []
        assert validate_submission(file, EXPECTED) == []


def test_a_whole_submission_to_the_challenge_is_valid(tmp_path: Path) -> None:
    expected: dict[Split, list[str]] = {"public": challenge_ids("public"), "private": challenge_ids("private")}
    parts: dict[Split, dict[str, str]] = {split: dict.fromkeys(ids, "a thing") for split, ids in expected.items()}
    archive = write_results(tmp_path, parts, "v1")[-1]
    assert validate_submission(archive, expected) == []


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_archive_is_told_what_is_wrong(case: str, tmp_path: Path) -> None:
    files, said = BROKEN[case]
    problems = validate_submission(pack(tmp_path / "result.zip", files), EXPECTED)
    assert any(re.search(said, problem) for problem in problems), problems


def test_each_problem_has_words_of_its_own() -> None:
    assert len({said for _, said in BROKEN.values()}) >= 25


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    public = {"captions": {"cat-15": "", "cat-16": " ", "dog-15": 3, "dog-99": "a dog"}}
    files = {PUBLIC: json.dumps(public).encode(), "notes.txt": b"x"}
    problems = validate_submission(pack(tmp_path / "result.zip", files), EXPECTED)
    assert problems == [
        f"{PUBLIC}: 'version' is missing",
        f"{PUBLIC}: ids missing, 1 of 4 public ones: 'dog-16'",
        f"{PUBLIC}: ids not asked for: 'dog-99'",
        f"{PUBLIC}: empty captions: 'cat-15', 'cat-16'",
        f"{PUBLIC}: captions that are no text: 'dog-15'",
        f"{PRIVATE}: is missing; the archive holds '{PUBLIC}', 'notes.txt'",
        "the archive holds what is no part of a submission: 'notes.txt'",
    ]


def test_a_file_twice_in_the_archive_is_told(tmp_path: Path) -> None:
    path = pack(tmp_path / "result.zip", contents())
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(PUBLIC, contents()[PUBLIC])
    assert validate_submission(path, EXPECTED) == [f"{PUBLIC}: is in the archive 2 times"]


def flip(content: bytearray, place: int) -> bytearray:
    content[place] ^= 0xFF
    return content


def locked(content: bytearray) -> bytearray:
    """The flag of an encrypted entry, in the archive's directory."""
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return content


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda content: content[: len(content) // 2], "result.zip: is not a zip archive: it starts with b'PK"),
        (lambda content: bytearray(b"Rar!\x1a\x07") + content[:50], "it starts with b'Rar!"),
        (lambda content: flip(content, 60), f"{PUBLIC}: cannot be unpacked"),
        (locked, f"{PUBLIC}: is protected by a password"),
        (lambda content: flip(content, content.index(b"PK\x01\x02")), "result.zip: is a damaged zip archive"),
        (lambda content: bytearray(MAX_BYTES + 1), "expected at most"),
    ],
)
def test_a_file_that_is_no_archive_is_told(spoil: Callable[[bytearray], bytearray], said: str, tmp_path: Path) -> None:
    path = pack(tmp_path / "result.zip", contents())
    path.write_bytes(spoil(bytearray(path.read_bytes())))
    problems = validate_submission(path, EXPECTED)
    assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_no_damage_ends_in_anything_but_words(method: int, tmp_path: Path) -> None:
    path = tmp_path / "result.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents().items():
            archive.writestr(name, content)
    whole = path.read_bytes()
    rng = random.Random(method)
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content[rng.choice((0, 0, 0, 40)) :])
        assert all(isinstance(problem, str) for problem in validate_submission(path, EXPECTED))
    path.write_bytes(whole[60:])
    assert validate_submission(path, EXPECTED)


def test_one_part_alone_is_checked_as_json(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    private = valid("private")
    private["captions"]["dog-19"] = ""
    path.write_text(json.dumps(private))
    assert validate_submission(path, EXPECTED) == ["mine.json: empty captions: 'dog-19'"]
    assert "holds none of the 4 public ids" in validate_submission(path, {"public": EXPECTED["public"]})[0]


def test_a_zip_of_one_part_need_not_hold_the_other(tmp_path: Path) -> None:
    path = pack(tmp_path / "result.zip", {result_name("private"): contents()[PRIVATE]})
    assert validate_submission(path, {"private": EXPECTED["private"]}) == []
    assert len(validate_submission(path, EXPECTED)) == 1


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none.zip: cannot be read"):
        validate_submission(tmp_path / "none.zip", EXPECTED)
