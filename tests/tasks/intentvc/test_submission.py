"""The challenge's files."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from internvl_chat.contracts import UserError
from internvl_chat.tasks.intentvc import submission
from internvl_chat.tasks.intentvc.submission import Split

SPLITS: tuple[Split, ...] = ("public", "private")


@pytest.mark.parametrize("split", SPLITS)
def test_ids_are_those_of_the_example_submission(split: Split, tmp_path: Path) -> None:
    ids = ["zebra-18", "cat-15", "cat-9"]
    example = {"version": "example", "captions": dict.fromkeys(ids, "")}
    (tmp_path / f"sample_result_{split}.json").write_text(json.dumps(example))
    (tmp_path / "dog" / "dog-15").mkdir(parents=True)
    assert submission.ids_of_split(tmp_path, split) == ids


def test_the_challenge_asks_for_210_ids_a_split() -> None:
    public, private = (submission.challenge_ids(split) for split in SPLITS)
    assert len(set(public)) == len(public) == len(set(private)) == len(private) == 210
    assert public[:4] == ["airplane-15", "airplane-16", "airplane-17", "basketball-15"]
    assert private[-4:] == ["yoyo-20", "zebra-18", "zebra-19", "zebra-20"]
    assert not set(public) & set(private)
    assert {"electricfan-15", "rubicCube-16", "gametarget-17", "licenseplate-15"} <= set(public)


def test_the_challenges_ids_are_those_that_the_folders_number(tmp_path: Path) -> None:
    for split in SPLITS:
        for video_id in submission.challenge_ids(split):
            (tmp_path / video_id.split("-")[0] / video_id).mkdir(parents=True)
    for split in SPLITS:
        assert sorted(submission.ids_of_split(tmp_path, split)) == sorted(submission.challenge_ids(split))


def test_without_an_example_the_folders_are_numbered(tmp_path: Path) -> None:
    for number in (1, 14, 15, 17, 18, 20, 21):
        (tmp_path / "dog" / f"dog-{number}").mkdir(parents=True)
    (tmp_path / "cat" / "cat-16").mkdir(parents=True)
    (tmp_path / "train.json").touch()
    assert submission.ids_of_split(tmp_path, "public") == ["cat-16", "dog-15", "dog-17"]
    assert submission.ids_of_split(tmp_path, "private") == ["dog-18", "dog-20"]


def test_a_root_without_test_videos_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}.*private"):
        submission.ids_of_split(tmp_path, "private")


@pytest.mark.parametrize("content", [["a-1", "b-2"], {"captions": {"a-1": "", "b-2": ""}}, {"a-1": "", "b-2": ""}])
def test_ids_are_read_from_a_list_or_a_captions_file(content: object, tmp_path: Path) -> None:
    (tmp_path / "ids.json").write_text(json.dumps(content))
    assert submission.read_ids(tmp_path / "ids.json") == ["a-1", "b-2"]


@pytest.mark.parametrize("content", [[], {"captions": {}}, [1, 2], 7, "a-1"])
def test_a_file_without_ids_is_named(content: object, tmp_path: Path) -> None:
    (tmp_path / "ids.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="ids.json"):
        submission.read_ids(tmp_path / "ids.json")
    (tmp_path / "sample_result_public.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="sample_result_public.json"):
        submission.ids_of_split(tmp_path, "public")


def test_a_part_that_is_no_list_of_ids_is_named(tmp_path: Path) -> None:
    for value in (5, "abc", [1], []):
        (tmp_path / "ids.json").write_text(json.dumps({"public": value, "private": ["a-1"]}))
        with pytest.raises(UserError, match="ids.json"):
            submission.read_ids_of_parts(tmp_path / "ids.json", SPLITS)


@pytest.mark.parametrize(
    ("candidates", "caption"),
    [
        (["a dog"], "a dog"),
        (["", " ...", "two\tdogs\n run "], "two dogs run"),
        (["a \ufffd\ufffddog\u0007"], "a dog"),
        (["half \ud83d"], "half"),
        (["", "\ufffd", "!"], None),
        ([], None),
    ],
)
def test_a_submitted_caption_is_one_line_with_a_word(candidates: list[str], caption: str | None) -> None:
    assert submission.submitted_caption(candidates) == caption


def test_results_are_written_in_the_challenges_form(tmp_path: Path) -> None:
    captions: dict[Split, dict[str, str]] = {
        "public": {"dog-15": "a dog – 狗", "dog-16": "two dogs"},
        "private": {"dog-18": "a third"},
    }
    paths = submission.write_results(tmp_path / "out", captions, "v1")
    assert [p.name for p in paths] == ["result_public.json", "result_private.json", "result.zip"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in paths)
    with zipfile.ZipFile(paths[-1]) as archive:
        assert archive.namelist() == ["result_public.json", "result_private.json"]
        for split in SPLITS:
            content = archive.read(f"result_{split}.json")
            assert json.loads(content) == {"version": "v1", "captions": captions[split]}
            assert content == (tmp_path / "out" / f"result_{split}.json").read_bytes()


def test_the_same_captions_give_the_same_bytes(tmp_path: Path) -> None:
    captions: dict[Split, dict[str, str]] = {"private": {"dog-18": "a dog"}}
    first = [path.read_bytes() for path in submission.write_results(tmp_path / "a", captions, "v1")]
    os.utime(tmp_path / "a" / "result_private.json", (1, 1))
    assert [path.read_bytes() for path in submission.write_results(tmp_path / "b", captions, "v1")] == first


def test_ids_of_both_parts_are_read_from_one_file(tmp_path: Path) -> None:
    file = tmp_path / "ids.json"
    file.write_text(json.dumps({"public": ["a-1", "b-1"], "private": ["a-2"]}))
    assert submission.read_ids_of_parts(file, SPLITS) == {"public": ["a-1", "b-1"], "private": ["a-2"]}
    assert submission.read_ids_of_parts(file, ["private"]) == {"private": ["a-2"]}
    file.write_text(json.dumps(["a-1", "b-1"]))
    assert submission.read_ids_of_parts(file, ["public"]) == {"public": ["a-1", "b-1"]}
    with pytest.raises(UserError, match="ids.json.*--part"):
        submission.read_ids_of_parts(file, SPLITS)
