"""The ablation runner: the paper's table from scripts, held-out clips by content, finished rows left alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from internvl_chat.__main__ import main
from internvl_chat.choices import CONTROLS, PROMPT_FORMS
from internvl_chat.commands.ablation import Row, add_arguments, held_out_ids, table
from internvl_chat.contracts import UserError
from internvl_chat.data.records.annotations import DatasetEntry, read_captions
from internvl_chat.data.records.intentvc import video_path_of

pytestmark = pytest.mark.process

PREDICTION_FLAGS = "--num_frames 3 --max_new_tokens 4 --num_workers 0"


@pytest.fixture
def recipe(captioner_folder: Path, tmp_path: Path) -> Path:
    """Stands for a recipe's script: its training is over at once, its checkpoint is there."""
    script = tmp_path / "recipe.sh"
    log = f'echo "$META_PATH $*" >> {tmp_path}/calls\n'
    script.write_text(f'{log}cp -r {captioner_folder}/. "$OUTPUT_DIR"\n')
    return script


def test_every_row_is_trained_captioned_and_scored_once(
    shapes_entry: DatasetEntry, recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, root = tmp_path / "out", shapes_entry.root
    argv = ["ablation", "--captions", root / "train.json", "--root", root, "--out", out, "--script", recipe]
    argv += ["--references", root / "references_test.json", "--prediction_flags", PREDICTION_FLAGS]
    argv += ["--training_flags", "--seed 3", "--max_steps", 7, "--adapters", "multi"]
    forms = ["--prompt_forms", "text_only", "--controls", "crops"]
    assert main([str(word) for word in [*argv, *forms]]) == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split("/")[-1] for call in calls] == [
        f"text_only.json --num_adapter_layers {flags} --max_steps 7 --save_steps 7 --seed 3"
        for flags in ("5", "0 --crop_frames 4")
    ]
    summary = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert summary.keys() == {"text_only-multi", "crops"}
    assert summary == json.loads((out / "ablation.json").read_text())
    held_out = read_captions(root / "references_test.json")
    results = json.loads((out / "crops" / "results" / "result.json").read_text())
    assert results["captions"].keys() == held_out.keys()
    assert read_captions(out / "captions.json").keys() == read_captions(root / "train.json").keys()

    assert main([str(word) for word in [*argv, *forms, "--json"]]) == 0
    assert json.loads(capfd.readouterr().out) == summary
    assert len((tmp_path / "calls").read_text().splitlines()) == 2, "what is finished is not run again"
    assert main([str(word) for word in [*argv, *forms, "--max_steps", 8]]) == 1
    assert f"{out}: holds rows of other data or settings" in capfd.readouterr().err


def test_all_ids_of_a_video_are_held_out_together(shapes_entry: DatasetEntry) -> None:
    root = shapes_entry.root
    captions = read_captions(root / "train.json")
    held_out = held_out_ids(captions, 0.34, root)
    contents = {i: video_path_of(root, i).read_bytes() for i in captions}
    rest = {contents[i] for i in captions if i not in held_out}
    assert held_out and rest and not rest & {contents[i] for i in held_out}
    assert len(held_out) == 2, "one of three videos, which shows two objects"
    with pytest.raises(UserError, match="fox-1.mp4: cannot be read"):
        held_out_ids({"fox-1": ["a fox"]}, 0.5, root)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--held_out", "0"], r"--held_out 0: expected a share between 0 and 1"),
        (["--held_out", "-0.1"], r"--held_out -0.1: expected a share"),
        (["--held_out", "0.99"], r"0 ids to train on and 6 held out"),
        (["--script", "nowhere.sh"], r"nowhere.sh: not found: run this in a checkout"),
    ],
)
def test_what_cannot_be_run_is_told(
    flags: list[str], message: str, shapes_entry: DatasetEntry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(shapes_entry.root)
    argv = ["ablation", "--captions", f"{root}/train.json", "--root", root, "--out", str(tmp_path / "out"), *flags]
    assert main(argv) == 1
    assert message in capsys.readouterr().err


def test_every_prompt_form_has_its_rows() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    chosen = parser.parse_args(["--captions", "c.json", "--root", "."])
    assert sorted(chosen.prompt_forms) == sorted(PROMPT_FORMS) and chosen.prompt_forms[0] == "text_only"
    assert {"box_adapter", *chosen.controls}.union(*PROMPT_FORMS.values()) == set(CONTROLS)


def test_the_table_marks_what_is_shown_and_what_is_best() -> None:
    scores = {"BLEU-4": 0.4, "METEOR": 0.3, "CIDEr": 1.2, "ROUGE-L": 0.5, "exact": 0.25}
    better = {**scores, "CIDEr": 1.5}
    measured = {
        Row("text_only", "none"): scores,
        Row("red_box_coordinates", "single"): better,
        Row("text_only", "none", "crops"): scores,
    }
    rows = table(measured).splitlines()
    assert rows[2] == "|  |  |  | **0.4000** | **0.3000** | 1.2000 | **0.5000** | **0.2500** |"
    assert rows[4].startswith("|  |  | crops | **0.4000** |")
    assert rows[3] == "| ✓ | ✓ | single | **0.4000** | **0.3000** | **1.5000** | **0.5000** | **0.2500** |"
