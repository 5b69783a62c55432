"""The challenge's files."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from internvl_chat.contracts import UserError
from internvl_chat.evaluation import submission
from internvl_chat.evaluation.submission import Split
from tests.helpers import shared

SPLITS: tuple[Split, ...] = ("public", "private")


@pytest.mark.parametrize("split", SPLITS)
def test_ids_are_those_of_the_example_submission(split: Split, tmp_path: Path) -> None:
    example = shared(f"data/intentvc/sample_result_{split}.json")
    shutil.copy(example, tmp_path)
    ids = submission.ids_of_split(tmp_path, split)
    assert len(set(ids)) == len(ids) == 210
    assert ids == list(json.loads(example.read_text())["captions"])


def test_ids_of_the_example_are_those_of_the_numbering(tmp_path: Path) -> None:
    """The 70 categories of the challenge, as folders."""
    for split in SPLITS:
        for video_id in submission.read_ids(shared(f"data/intentvc/sample_result_{split}.json")):
            (tmp_path / video_id.split("-")[0] / video_id).mkdir(parents=True)
    for split in SPLITS:
        expected = submission.read_ids(shared(f"data/intentvc/sample_result_{split}.json"))
        assert sorted(submission.ids_of_split(tmp_path, split)) == sorted(expected)


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


def test_the_form_is_that_of_the_valid_example(tmp_path: Path) -> None:
    example = json.loads(shared("data/intentvc/submission_public_example.json").read_text())
    path, *_ = submission.write_results(tmp_path, {"public": example["captions"]}, example["version"])
    assert json.loads(path.read_text(encoding="utf-8")) == example
