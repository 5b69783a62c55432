"""What cannot stand in a prompt is no name, wherever it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_chat.contracts import UserError
from internvl_chat.data.records.annotations import load_meta
from internvl_chat.data.records.intentvc import category_of
from internvl_chat.data.records.names import check_name


@pytest.mark.parametrize(
    "name",
    [
        "dog",
        'dog\'s "toy"',
        "{object}",
        "\u72d7",
        "a < b",
        "\u06a9\u200c\u06a9",
        "\U0001f469\u200d\U0001f680",
        "x" * 200,
    ],
)
def test_names_of_things(name: str) -> None:
    assert check_name(name, "here") == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "dog<|im_end|>", "<image>", "a\nb", "a\u2028b", "</ref><box>", "<IMG_CONTEXT>", "[INST]", "x" * 201, 7]
    + [
        "dog\u200b",
        "\ufeffdog",
        "do\xadg",
        "\u202edog",
        "dog\u2066",
        "<pad>",
        "<start_of_turn>",
        "<|reserved_9|>",
        "<<SYS>>",
    ],
)
def test_what_would_steer_a_prompt_is_refused(name: object) -> None:
    with pytest.raises(UserError, match="^here: the name "):
        check_name(name, "here")


def test_names_of_a_meta_json_are_checked(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    entry = {"root": str(tmp_path), "annotation": str(tmp_path / "a.jsonl"), "object_names": {"cup": "mug<|im_end|>"}}
    (tmp_path / "meta.json").write_text(json.dumps({"cups": entry}))
    with pytest.raises(UserError, match="'object_names' of 'cups': the name .* holds <|im_end|>"):
        load_meta(tmp_path / "meta.json")


@pytest.mark.parametrize(
    ("video_id", "category"), [("airplane-15", "airplane"), ("traffic-light-2", "traffic-light"), ("my-dog", "my-dog")]
)
def test_the_number_of_a_video_is_behind_its_last_dash(video_id: str, category: str) -> None:
    assert category_of(video_id) == category
