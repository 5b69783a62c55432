"""convert, merge, inspect and verify as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from internvl_chat.__main__ import main
from tests.helpers import byte_tokenizer
from tests.model.original_reference import write_checkpoint
from tests.model.test_loading_errors import write_training_checkpoint


def test_from_an_original_base_to_a_merged_model_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(tmp_path / "base", "phi3")
    trained, merged = tmp_path / "trained", tmp_path / "merged"
    write_training_checkpoint(tmp_path / "base", trained)
    byte_tokenizer().save_pretrained(trained)
    (trained / "prompt_config.json").write_text("{}")
    assert main(["merge", str(trained), str(merged)]) == 0
    assert (merged / "prompt_config.json").is_file()
    assert not list(merged.glob("adapter_*")) and not list(merged.glob("trained_modules*"))
    assert len(AutoTokenizer.from_pretrained(merged)) == len(byte_tokenizer())
    assert main(["convert", str(merged), str(tmp_path / "original"), "--to", "original"]) == 0
    assert json.loads((tmp_path / "original" / "config.json").read_text())["model_type"] == "internvl_chat"
    assert main(["inspect", str(trained), "--json"]) == 0
    report = json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))
    assert report["layout"] == "training checkpoint"
    assert report["trained"].keys() == {"box adapters", "projector", "LoRA"}


def test_verify_a_training_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(tmp_path / "base", "internlm2")
    write_training_checkpoint(tmp_path / "base", tmp_path / "trained")
    argv = ["verify", "--checkpoint_path", str(tmp_path / "trained"), "--num_frames", "2", "--max_new_tokens", "5"]
    code, out = main(argv), capsys.readouterr().out
    assert main([*argv, "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert told["holds"] is (code == 0)
    assert [check["of"] for check in told["checks"]] == ["merged", "exported"] * 2
    assert {check["holds"] for check in told["checks"] if check["dtype"] == "float32"} == {True}
    lines = [line for line in out.splitlines() if "max |dlogits|" in line]
    assert len(lines) == 4
    assert all(float(line.split()[-1]) < 1e-4 and "equal" in line for line in lines if line.startswith("float32"))
    assert code == 0 or "bfloat16: base + adapter" in out


def test_a_folder_that_is_no_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--case", str(tmp_path)]) == 1
    assert "is no case" in capsys.readouterr().err
