"""Idefics3 through the whole of it: the guide's run under ZeRO-3, what it saves, merged, inspected, verified, asked."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from transformers import Idefics3ForConditionalGeneration

from internvl_chat.__main__ import main as command_line
from internvl_chat.contracts import UserError
from internvl_chat.data.records.annotations import load_meta, read_samples
from internvl_chat.families import family_of
from internvl_chat.inference.answers import questions_of
from internvl_chat.inference.chat import Chat
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.handle import open_model
from internvl_chat.inference.predict import BatchLimits
from internvl_chat.inference.session import PredictionSession
from internvl_chat.model.checkpoint import load_captioner
from internvl_chat.model.loading import load_config
from internvl_chat.planning.inspection import inspect_checkpoint
from internvl_chat.train.arguments import ModelArguments
from internvl_chat.train.build import trainable_part
from internvl_chat.train.finetune_w_bboxes_ml import check_flags, parse_arguments
from tests.tiny_idefics3 import TILE_PX, write_tiny
from tests.train.conftest import REPOSITORY, StartScript
from tests.train.running import finish

pytestmark = pytest.mark.process


def flags_of_the_guide() -> list[str]:
    """What docs/adding/family.md gives to launch.sh, with the tiny model's tile."""
    guide = (REPOSITORY / "docs" / "adding" / "family.md").read_text(encoding="utf-8")
    found = re.search(r"bash shell/launch\.sh (.*?)\npython", guide, re.DOTALL)
    assert found is not None
    words = shlex.split(found[1].replace("\\\n", " "))
    assert "364" in words
    return [str(TILE_PX) if word == "364" else word for word in words]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("idefics3") / "base")


@pytest.fixture(scope="module")
def trained(base: Path, start_script: StartScript, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose steps are so large that three of them change what the model answers."""
    folder = tmp_path_factory.mktemp("idefics3-run") / "run"
    flags = [*flags_of_the_guide(), *"--use_backbone_lora 2 --learning_rate 2e-2 --max_steps 3 --save_steps 3".split()]
    finish(start_script(folder, *flags, MODEL_PATH=str(base)))
    return folder


@pytest.fixture(scope="module")
def merged(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("idefics3-merged") / "merged"
    assert command_line(["merge", str(trained), str(folder)]) == 0
    return folder


def test_it_learns(trained: Path) -> None:
    history = json.loads((trained / "trainer_state.json").read_text())["log_history"]
    losses = [line["loss"] for line in history if "loss" in line]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert all(line["tiles_per_s"] > 0 and line["tflops_per_s"] >= 0 for line in history if "loss" in line)


def test_what_was_trained_is_what_is_saved(trained: Path, base: Path) -> None:
    part = trainable_part(ModelArguments(str(base)), load_config(base))
    report = inspect_checkpoint(str(trained), part, num_adapter_layers=0)
    assert (report.layout, report.language_model, report.template) == ("training checkpoint", "llama", "idefics3")
    assert report.trained.keys() == {"projector", "LoRA"} and report.sizes.keys() == {
        "ViT",
        "projector",
        "language model",
    }


@torch.no_grad()
def test_the_merged_model_is_one_of_transformers(trained: Path, merged: Path, base: Path) -> None:
    native = Idefics3ForConditionalGeneration.from_pretrained(merged, dtype=torch.float32).eval()
    ids = torch.arange(20, 40)[None]
    ours = [load_captioner(folder, dtype=torch.float32)(input_ids=ids).logits for folder in (trained, merged, base)]
    assert torch.equal(native(input_ids=ids).logits, ours[1])
    torch.testing.assert_close(ours[0], ours[1], rtol=0, atol=1e-4)
    assert not torch.allclose(ours[0], ours[2], rtol=0, atol=0.1)
    assert command_line(["verify", "--checkpoint_path", str(trained), "--num_frames", "2"]) == 0


def test_it_answers_as_its_merged_form(trained: Path, merged: Path, shapes_meta: Path, tmp_path: Path) -> None:
    asks = [ask for sample in read_samples(load_meta(shapes_meta)[0])[:4] for ask in questions_of(sample)]
    answers = {}
    for folder in (trained, merged):
        opened = open_model(folder)
        assert opened.encoder.config.conv_style == "idefics3"
        decoding = Decoding(num_beams=2, max_new_tokens=9)
        session = PredictionSession.alone(opened, 3)
        predictions = session.predict(asks, decoding, BatchLimits(num_workers=0), tmp_path / folder.name)
        answers[folder] = predictions.captions
        assert not predictions.failures
    assert answers[trained] == answers[merged] and len(answers[trained]) == 4


def test_a_conversation_about_several_images(merged: Path, tmp_path: Path) -> None:
    from PIL import Image

    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, colour in zip(paths, ("red", "blue"), strict=True):
        Image.new("RGB", (70, 40), colour).save(path)
    chat = Chat.open(merged, max_new_tokens=4)
    first = chat.ask("what?", images=paths)
    again = chat.ask("and now?")
    assert len(first.plan.views) == len(again.plan.views) > 2
    assert chat.encoder.tokenizer.decode(again.plan.input_ids).count("<global-img>") == 2


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--normalize_type imagenet", "give --normalize_type siglip"),
        ("--conv_style internvl2_5", "--conv_style internvl2_5: expected one of idefics3 for this model"),
        ("--down_sample_ratio 0.25", "was made for 0.5"),
    ],
)
def test_flags_that_contradict_the_base_are_refused(flags: str, reason: str, base: Path, tmp_path: Path) -> None:
    given = [*flags_of_the_guide(), *flags.split(), "--model_name_or_path", str(base), "--meta_path", "none.json"]
    given = [word for word in given if word not in ("--deepspeed", "zero_stage3_config.json")]
    run = parse_arguments([*given, "--output_dir", str(tmp_path)])
    config = load_config(base)
    with pytest.raises(UserError, match=reason):
        check_flags(run, family_of(config), config)
