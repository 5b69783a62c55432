"""The chat: what the model is shown over a conversation, what comes back, and the command on top of it."""

from __future__ import annotations

import builtins
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from internvl_chat.__main__ import main
from internvl_chat.contracts import UserError
from internvl_chat.data.prompts.prompt_config import PROMPT_CONFIG_NAME
from internvl_chat.data.prompts.wordings import wording_named
from internvl_chat.data.records.annotations import DatasetEntry
from internvl_chat.data.records.given.given_boxes import track_of_box
from internvl_chat.data.records.given.track_files import tracks_of_file
from internvl_chat.data.records.intentvc import boxes_path_of, video_path_of
from internvl_chat.data.records.record_questions import question_sample
from internvl_chat.grounding import LabelledBox
from internvl_chat.inference.chat import Answer, Chat
from internvl_chat.inference.generation import caption_plainly
from internvl_chat.inference.handle import open_model
from internvl_chat.inference.requests import Viewpoint
from tests.families import FAMILIES, write_family
from tests.helpers import ROOT, TILE_PX, TOKENS_PER_FRAME

WRITTEN = "here: <ref>dog</ref><box>[[100, 200, 500, 600], [0, 0, 90, 80]]</box>"


@pytest.fixture
def chat(captioner_folder: Path) -> Chat:
    return Chat.open(captioner_folder, num_frames=3, max_new_tokens=14)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 255, (30, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return paths


@pytest.fixture
def clip(shapes_entry: DatasetEntry) -> Path:
    return video_path_of(shapes_entry.root, "square-1")


@pytest.fixture
def dictated(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make the model write a given text, through the streamer as `generate` does."""

    def dictate(text: str) -> None:
        tokenizer = chat.encoder.tokenizer
        ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]

        def generate(input_ids: torch.Tensor, streamer: Any, **_: Any) -> torch.Tensor:
            if streamer is not None:
                streamer.put(input_ids)
                for token_id in ids:
                    streamer.put(torch.tensor([token_id]))
                streamer.end()
            return torch.tensor([[*input_ids[0].tolist(), *ids]])

        monkeypatch.setattr(chat.model, "generate", generate)

    return dictate


def prompt_of(chat: Chat, answer: Answer) -> str:
    """The prompt as text, every run of image tokens written `[T]`, from the first question on."""
    text = chat.encoder.tokenizer.decode(answer.plan.input_ids)
    tile = f"<img>{'<IMG_CONTEXT>' * TOKENS_PER_FRAME}</img>"
    return text.replace(tile, "[T]").partition("<|im_start|>user\n")[2]


def test_a_question_about_a_clip_is_what_prediction_asks(chat: Chat, clip: Path, shapes_entry: DatasetEntry) -> None:
    sample = question_sample(shapes_entry, "square-1", wording_named("coordinates").asks)
    expected = caption_plainly(chat.model, Viewpoint(chat.encoder, 3), sample, max_new_tokens=14)
    tracks = tracks_of_file(boxes_path_of(clip), "square")
    answer = chat.ask(wording_named("coordinates").asks("square"), video=clip, tracks=tracks)
    assert answer.text == expected != ""
    assert answer.plan.boxes.any(axis=1).all()


def test_another_box_is_another_answer(chat: Chat, clip: Path) -> None:
    answers = []
    for box in ((0, 0, 300, 300), (600, 500, 1000, 1000)):
        chat.reset()
        answers.append(chat.ask("What does it do?", video=clip, tracks=[track_of_box(box)]).text)
    assert answers[0] != answers[1]


def test_history_and_pictures_are_kept_until_the_reset(chat: Chat, images: list[Path]) -> None:
    first = chat.ask("One?", images=images[:1])
    second = chat.ask("And?")
    third = chat.ask("Both?", images=images[1:])
    asked = "<|im_end|>\n<|im_start|>user\n"
    said = "<|im_end|>\n<|im_start|>assistant\n"
    assert prompt_of(chat, first) == f"[T]\nOne?{said}"
    assert prompt_of(chat, second) == f"[T]\nOne?{said}{first.text}{asked}And?{said}"
    assert prompt_of(chat, third).endswith(f"{asked}Image-2: [T]\nBoth?{said}")
    assert len(third.plan.views) == 2
    chat.reset()
    fourth = chat.ask("Alone?")
    assert prompt_of(chat, fourth) == f"Alone?{said}" and len(fourth.plan.views) == 0


def test_several_images_are_numbered_unless_the_question_places_them(chat: Chat, images: list[Path]) -> None:
    assert prompt_of(chat, chat.ask("Which?", images=images)).startswith("Image-1: [T]\nImage-2: [T]\nWhich?")
    chat.reset()
    assert prompt_of(chat, chat.ask("Is <image> <image>?", images=images)).startswith("Is [T] [T]?")


def test_the_answer_is_streamed_as_it_is_written(chat: Chat, images: list[Path]) -> None:
    pieces: list[str] = []
    answer = chat.ask("What?", images=images[:1], on_text=pieces.append)
    assert "".join(pieces).strip() == answer.text != ""


def test_boxes_are_read_with_their_tags_and_nothing_else_special(
    chat: Chat, dictated: Callable[[str], None], images: list[Path]
) -> None:
    dictated(WRITTEN)
    pieces: list[str] = []
    answer = chat.ask("Where?", images=images[:1], on_text=pieces.append)
    assert answer.text == "".join(pieces) == WRITTEN
    assert len(pieces) > 4
    assert answer.boxes == (LabelledBox("dog", (100, 200, 500, 600)), LabelledBox("dog", (0, 0, 90, 80)))


def test_boxes_are_drawn_where_they_are(chat: Chat, dictated: Callable[[str], None], tmp_path: Path) -> None:
    dictated(WRITTEN)
    Image.new("RGB", (320, 160), "white").save(tmp_path / "w.png")
    answer = chat.ask("Where?", images=[tmp_path / "w.png"], tracks=[track_of_box((200, 100, 800, 900))])
    drawn = np.array(chat.draw(answer))
    coloured = np.ptp(drawn[:160].astype(int), axis=2) > 60
    # The sheet's own margin comes before the picture.
    for x1, y1, x2, y2 in ((100, 200, 500, 600), (200, 100, 800, 900)):
        middle = (y1 + y2) * 160 // 2000
        assert coloured[middle - 4 : middle + 4, x1 * 320 // 1000 - 2 : x1 * 320 // 1000 + 7].any()
        assert coloured[middle - 4 : middle + 4, x2 * 320 // 1000 - 2 : x2 * 320 // 1000 + 9].any()
    assert not coloured[100:150, 265:310].any()


def test_what_does_not_go_together_is_told_and_changes_nothing(
    chat: Chat, clip: Path, images: list[Path], tmp_path: Path
) -> None:
    chat.ask("One?", images=images[:1])
    before = chat.conversation
    box = track_of_box((1, 2, 3, 4))
    for said, asked in (
        ("a video comes alone, with the first question", {"video": clip}),
        ("c.png: picture not found", {"images": [tmp_path / "c.png"]}),
    ):
        with pytest.raises(UserError, match=said):
            chat.ask("Two?", **asked)
        assert chat.conversation is before
    with pytest.raises(UserError, match=r"the conversation: .* 0 '<image>' placeholders for 1 images|3 '<image>'"):
        chat.ask("<image> <image> <image>?", images=images[1:])
    chat.reset()
    with pytest.raises(UserError, match="a box needs a picture"):
        chat.ask("Two?", tracks=[box])
    with pytest.raises(UserError, match="no pictures"):
        chat.draw(chat.ask("Two?"))
    chat.reset()
    chat.ask("One?", video=clip)
    with pytest.raises(UserError, match="about a video"):
        chat.ask("Two?", images=images)


@pytest.mark.parametrize("name", ["internvl2_1b", "internvl2_2b", "internvl2_4b", "internvl2_40b"])
def test_a_base_of_any_family_chats_in_its_own_template(name: str, images: list[Path], tmp_path: Path) -> None:
    """As the hub has them: original layout, and no prompt configuration."""
    chat = Chat.open(write_family(tmp_path / name, name), max_new_tokens=3)
    config = chat.encoder.config
    assert config.conv_style == FAMILIES[name].template
    assert (config.dynamic_image_size, config.use_thumbnail) == (True, True)
    answer = chat.ask("What?", images=images[:1])
    assert len(answer.plan.views) > 1 and isinstance(answer.text, str)


def test_fewer_tiles_than_in_training(captioner_folder: Path, tmp_path: Path) -> None:
    folder = write_family(tmp_path / "base", "internvl2_1b")
    for most, cuts in ((1, False), (4, True)):
        config = open_model(folder, max_dynamic_patch=most).encoder.config
        assert (config.max_dynamic_patch, config.dynamic_image_size) == (most, cuts)
    assert open_model(captioner_folder).encoder.config.force_image_size == TILE_PX


def test_the_lines_of_the_page_on_chats(
    captioner_folder: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = re.findall(r"```python\n(.*?)```", (ROOT / "docs/grounding.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    exec(block.replace("CKPT", str(captioner_folder)), {})
    assert images[0] == tmp_path / "a.png" and Image.open("boxes.png").width > 300


def arguments(folder: Path, *more: object) -> list[str]:
    return [str(word) for word in ("chat", "--model", folder, "--max_new_tokens", 4, "--num_frames", 2, *more)]


def test_the_command_answers_lists_boxes_and_draws(
    captioner_folder: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "boxes.png"
    argv = arguments(captioner_folder, "--video", clip, "--tracks", boxes_path_of(clip), "--boxes_out", out)
    assert main([*argv, "--prompt_form", "coordinates", "--object", "square"]) == 0
    said = capsys.readouterr().out
    assert said.endswith(f"boxes: {out}\n")
    assert main([*argv, "--prompt_form", "coordinates", "--object", "square", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["boxes"] == [] and said.startswith(told["answer"])
    assert main([*argv, "--json"]) == 1
    assert "--json prints one answer: give --question or --prompt_form" in capsys.readouterr().err
    assert Image.open(out).width > 600


def test_a_file_that_cannot_be_used_does_not_stand_in_the_way(
    captioner_folder: Path,
    images: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes(images[0].read_bytes()[:60])
    out = tmp_path / "boxes.png"
    lines = iter([f"/image {cut}", "What?", "And now?", f"/image {images[0]}", "And this?", "/quit"])
    monkeypatch.setattr(builtins, "input", lambda _prompt: next(lines))
    assert main(arguments(captioner_folder, "--boxes_out", out)) == 0
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and str(cut) in errors[0]
    assert captured.out.count(f"boxes: {out}") == 1, "there is nothing to draw into before the picture"


def test_what_a_recipe_trains_on_is_not_what_can_be_asked(captioner_folder: Path, clip: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(captioner_folder, tmp_path / "short"))
    saved = json.loads((folder / PROMPT_CONFIG_NAME).read_text())
    (folder / PROMPT_CONFIG_NAME).write_text(json.dumps({**saved, "max_seq_length": 30}))
    chat = Chat.open(folder, num_frames=5, max_new_tokens=3)
    assert len(chat.ask("What?", video=clip).plan.input_ids) > 30


@pytest.mark.parametrize("path", ["boxes.jpg", "boxes", ".", "README.md/boxes.png"])
def test_a_picture_that_cannot_be_written_is_told_first(
    path: str, captioner_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments(captioner_folder, "--boxes_out", path))
    message = capsys.readouterr().err
    assert "argument --boxes_out: " in message and ("expected the path of a .png" in message or "folder" in message)


def test_the_command_holds_a_conversation(
    captioner_folder: Path,
    images: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = iter(
        [
            "What?",
            f"/image {images[1]}",
            "And?",
            "/image nowhere.png",
            "/jump",
            "",
            "\udcff?",
            "/reset",
            "What?",
            "/quit",
        ]
    )
    monkeypatch.setattr(builtins, "input", lambda _prompt: next(lines))
    shown: list[int] = []
    ask = Chat.ask

    def counted(self: Chat, *args: Any, **kwargs: Any) -> Answer:
        answer = ask(self, *args, **kwargs)
        shown.append(len(answer.plan.views))
        return answer

    monkeypatch.setattr(Chat, "ask", counted)
    assert main(arguments(captioner_folder, "--image", images[0])) == 0
    captured = capsys.readouterr()
    assert shown == [1, 2, 1]
    first, second, third = captured.out.splitlines()
    assert first == third != second
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert [error.partition(": expected")[0] for error in errors] == [
        "error: /image nowhere.png: not found",
        "error: /jump",
        "error: this line is not UTF-8 text",
    ]
