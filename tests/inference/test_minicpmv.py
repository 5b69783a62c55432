"""MiniCPM-V behind the seam: packed rows, batches and chats are those of each sample alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from internvl_chat.__main__ import main
from internvl_chat.contracts import Sample, Turn
from internvl_chat.data.prompts.encoder import SampleEncoder
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.training_set.collator import PackCollator
from internvl_chat.data.training_set.packing import pack_answers
from internvl_chat.files import write_jsonl
from internvl_chat.inference.chat import Chat
from internvl_chat.model.checkpoint import load_base
from internvl_chat.model.shared_prefix import use_shared_prefix_attention
from tests.minicpmv import QUERIES, llama3_tokenizer, write_minicpmv

CONFIG = PromptConfig.of("minicpmv2_5", 56, QUERIES, normalize_type="siglip")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base/ beside pictures of different shapes and a folder of frames."""
    made = tmp_path_factory.mktemp("minicpmv")
    write_minicpmv(made / "base")
    rng = np.random.default_rng(5)
    (made / "frames").mkdir()
    sizes = {"a.png": (50, 30), "b.png": (20, 60), **{f"frames/{n}.png": (44, 33) for n in range(3)}}
    for name, (width, height) in sizes.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(made / name)
    return made


def sample(*texts: str, **shown: Any) -> Sample:
    turns = tuple(Turn(("human", "gpt")[i % 2], text) for i, text in enumerate(texts))
    return Sample(texts[0], turns, "a.jsonl:1", **shown)


def test_a_packed_row_has_the_loss_and_gradients_of_its_samples(folder: Path) -> None:
    encoder = SampleEncoder(llama3_tokenizer(), CONFIG)
    video = {"video_path": folder / "frames"}
    prompts = [
        [sample("<video>\nWhat?", answer, **video) for answer in ("a dog", "that", "no more")],
        [sample("<image> or <image>?", "b", image_paths=(folder / "a.png", folder / "b.png"))],
        [sample("Why?", "so it is")],
    ]
    model = load_base(str(folder / "base"), num_adapter_layers=0, dtype=torch.float32).train()
    use_shared_prefix_attention(model)

    def packed(samples: list[Sample]) -> Any:
        plans = [encoder.plan(one, encoder.choose_frames(one, 2, "middle")) for one in samples]
        return pack_answers(plans, encoder.pixels(samples[0], plans[0]), "token")

    def loss_and_gradients(passes: list[Any]) -> tuple[float, list[torch.Tensor]]:
        model.zero_grad(set_to_none=True)
        batches = [PackCollator(encoder.family.data.blank(CONFIG))(one) for one in passes]
        count = sum(float(batch["loss_weights"].sum()) for batch in batches)
        loss = sum(model(**batch, num_items_in_batch=count).loss for batch in batches)
        loss.backward()
        return loss.item(), [parameter.grad.clone() for parameter in model.parameters()]

    together = loss_and_gradients([[packed(samples) for samples in prompts]])
    alone = loss_and_gradients([[packed([one])] for samples in prompts for one in samples])
    assert together[0] == pytest.approx(alone[0], abs=1e-5)
    for mine, other in zip(together[1], alone[1], strict=True):
        assert torch.allclose(mine, other, atol=1e-5)


def test_answers_are_the_same_in_any_batch_and_in_a_chat(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "-"}]
    both = [{**ask[0], "value": "<image> <image>\nWhich?"}, ask[1]]
    lines = [
        {"id": 1, "image": "a.png", "conversations": ask},
        {"id": 2, "image": ["a.png", "b.png"], "conversations": both},
        {"id": 3, "video": "frames", "conversations": [{**ask[0], "value": "<video>\nWhat?"}, ask[1]]},
        {"id": 4, "conversations": [{**ask[0], "value": "Why?"}, ask[1]]},
    ]
    write_jsonl(folder / "val.jsonl", lines)
    written = []
    for batch_tokens in (1, 65536):
        out = folder / f"{batch_tokens}.jsonl"
        argv = ["answer", "--model", folder / "base", "--records", folder / "val.jsonl", "--out", out]
        argv += ["--num_workers", 0, "--batch_tokens", batch_tokens, "--max_new_tokens", 5, "--num_frames", 2]
        assert main([str(word) for word in argv]) == 0
        written.append([json.loads(line)["answer"] for line in out.read_text().splitlines()])
    assert written[0] == written[1] and len(set(written[0])) > 1
    capsys.readouterr()
    chat = Chat.open(folder / "base", max_new_tokens=5)
    assert chat.ask("What?", images=[folder / "a.png"]).text == written[0][0]
    chat.reset()
    assert chat.ask("Why?").text == written[0][3]
