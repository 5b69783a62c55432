"""CogVLM2-Video through the commands: read in the original's layout, captioned, converted, told about."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from internvl_chat.__main__ import main
from internvl_chat.data.media.video import read_frames
from internvl_chat.families.clip_frames import frame_pixels
from internvl_chat.inference.chat import Chat
from internvl_chat.model.checkpoint import load_captioner
from internvl_chat.model.families.cogvlm2_video import CogVLM2VideoForConditionalGeneration
from tests.cogvlm2 import SIDE_PX, TOKENS_PER_FRAME, llama_byte_tokenizer, write_original
from tests.data.clips import write_clip

QUESTION = "Please describe this video in detail."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cogvlm2") / "original"


@pytest.fixture(scope="module")
def native(folder: Path) -> CogVLM2VideoForConditionalGeneration:
    return write_original(folder)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for seconds in (1, 2, 4, 7):
        write_clip(folder / f"{seconds}.mp4", 25 * seconds + 3)
    return folder


def plain_caption(model: CogVLM2VideoForConditionalGeneration, video: Path, frames: list[int]) -> str:
    """As the published code asks: one video alone, transformers' own generate."""
    tokenizer = llama_byte_tokenizer()
    text = "<|begin_of_text|>"
    text += "".join("<|reserved_special_token_1|>" * TOKENS_PER_FRAME + str(number) for number in range(len(frames)))
    ids = tokenizer(text + f"Question: {QUESTION} Answer:", add_special_tokens=False, return_tensors="pt")["input_ids"]
    shown = torch.from_numpy(read_frames(video, torch.tensor(frames).numpy())).permute(0, 3, 1, 2)
    out = model.generate(
        ids,
        vision={"pixel_values": frame_pixels(shown, SIDE_PX)},
        attention_mask=torch.ones_like(ids),
        max_new_tokens=9,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_videos_of_all_lengths_are_captioned_together_as_alone(
    native: CogVLM2VideoForConditionalGeneration, folder: Path, clips: Path, tmp_path: Path
) -> None:
    for name, tokens in (("together", 65536), ("alone", 1)):
        argv = ["caption-videos", clips, "--model", folder, "--out", tmp_path / name, "--max_new_tokens", 9]
        argv += ["--num_workers", 0, "--batch_tokens", tokens]
        assert main([str(word) for word in argv]) == 0
    written = [(tmp_path / name / "captions.jsonl").read_bytes() for name in ("together", "alone")]
    assert written[0] == written[1]
    records = [json.loads(line) for line in written[0].splitlines()]
    assert [record["frames"] for record in records] == [
        [25 * second for second in range(seconds + 1)] for seconds in (1, 2, 4, 7)
    ]
    assert {record["strategy"] for record in records} == {"chat"}
    for record in records:
        assert record["caption"] == plain_caption(native, clips / record["video"], record["frames"])


def test_templates_are_called_by_how_they_end(
    native: CogVLM2VideoForConditionalGeneration,
    folder: Path,
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["caption-videos", clips / "2.mp4", "--model", folder, "--max_new_tokens", 9, "--num_workers", 0]
    captions = []
    for template in ("chat", "vqa", "cogvlm2-base"):
        out = tmp_path / template
        assert main([str(word) for word in (*argv, "--out", out, "--template", template)]) == 0
        captions.append(json.loads((out / "captions.jsonl").read_text())["caption"])
    assert len(set(captions)) == 3
    assert captions[0] == plain_caption(native, clips / "2.mp4", [0, 25, 50])
    for template, told in (
        ("hm", "--template hm: expected one of cogvlm2-chat"),
        ("phi3-chat", "--template phi3-chat: expected"),
    ):
        assert main([str(word) for word in (*argv, "--out", tmp_path / "x", "--template", template)]) == 1
        assert told in capsys.readouterr().err


def test_a_chat_shows_the_same_frames_and_goes_on(
    native: CogVLM2VideoForConditionalGeneration, folder: Path, clips: Path
) -> None:
    chat = Chat.open(folder, max_new_tokens=9)
    first = chat.ask(QUESTION, video=clips / "4.mp4")
    assert first.plan.frame_indices.tolist() == [0, 25, 50, 75, 100]
    assert first.text == plain_caption(native, clips / "4.mp4", first.plan.frame_indices.tolist())
    second = chat.ask("Why?")
    prompt = llama_byte_tokenizer().decode(second.plan.input_ids)
    assert prompt.endswith(f"Question: {QUESTION} Answer: {first.text}\nQuestion: Why? Answer:")


def test_there_and_back_through_the_commands_every_bit_is_kept(
    native: CogVLM2VideoForConditionalGeneration, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(folder), str(tmp_path / "hf"), "--to", "hf"]) == 0
    assert main(["convert", str(tmp_path / "hf"), str(tmp_path / "back"), "--to", "original"]) == 0
    tensors = [
        {name: tensor for file in sorted(place.glob("*.safetensors")) for name, tensor in load_file(file).items()}
        for place in (folder, tmp_path / "back")
    ]
    tensors[0] = {name: tensor for name, tensor in tensors[0].items() if not name.endswith("inv_freq")}
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
    configs = [json.loads((place / "config.json").read_text()) for place in (folder, tmp_path / "back")]
    assert configs[1] == {**configs[0], "torch_dtype": "float32"}
    again = load_captioner(tmp_path / "hf", dtype=torch.float32)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in native.state_dict().items())
    capsys.readouterr()
    assert main(["inspect", str(folder)]) == 0
    assert "llama" in capsys.readouterr().out
    assert main(["verify", "--checkpoint_path", str(folder)]) == 0
    assert "holds" in capsys.readouterr().out
