"""Detection in miniature: both recipes learn two pictures by heart, and what is merged still knows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_chat.__main__ import main
from internvl_chat.inference.chat import Chat
from internvl_chat.train.finetune_w_bboxes_ml import parse_arguments, train
from quickstart.grounding_proof import RECIPES, TINY_FLAGS
from quickstart.synthetic.stills import QUESTION, write_stills
from tests.train.conftest import BASE_MODEL

pytestmark = pytest.mark.process

# As the shell script says, but for what makes two pictures worth so few steps.
FLAGS = (
    "--conv_style internvl2_5 --num_adapter_layers 0 --freeze_backbone True --per_device_train_batch_size 2 "
    "--max_steps 60 --save_steps 60 --lr_scheduler_type cosine --report_to none --disable_tqdm True "
    "--dataloader_num_workers 0 --seed 3"
).split()
MODES = {"full": [], "lora": "--freeze_llm True".split()}


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stills(tmp_path_factory.mktemp("grounding") / "stills", train=2, val=1)


def ap50(model: Path, records: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> float:
    answers = folder / "answers.jsonl"
    argv = ["answer", "--model", model, "--records", records, "--out", answers, "--max_dynamic_patch", 1]
    assert main([str(word) for word in [*argv, "--max_new_tokens", 80, "--num_workers", 0]]) == 0
    assert main(["score-boxes", "--predictions", str(answers), "--references", str(records), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])["detection"]["overall"]["ap50"]


def test_the_base_does_not_know_boxes(stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ap50(BASE_MODEL, stills.with_name("train.jsonl"), tmp_path, capsys) == 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_learns_boxes(recipe: str, stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained, merged = tmp_path / recipe, tmp_path / "merged"
    paths = ["--model_name_or_path", str(BASE_MODEL), "--meta_path", str(stills), "--output_dir", str(trained)]
    train(parse_arguments([*TINY_FLAGS, *RECIPES[recipe], *MODES[recipe], *FLAGS, *paths]))
    records = stills.with_name("train.jsonl")
    assert ap50(trained, records, tmp_path, capsys) == pytest.approx(1.0)

    assert main(["merge", str(trained), str(merged)]) == 0
    first = json.loads(records.read_text().splitlines()[0])
    answer = Chat.open(merged, max_new_tokens=80).ask(QUESTION, images=[stills.parent / first["image"]])
    assert answer.text == first["conversations"][1]["value"]
    assert answer.boxes
