"""Original-layout checkpoints: the numbers of a plain reading of the specification, and the way back bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import InternVLForConditionalGeneration

from internvl_chat.__main__ import main
from internvl_chat.model.checkpoint import load_captioner
from internvl_chat.model.export import convert_checkpoint, merge_checkpoint
from internvl_chat.model.parity import check_case
from tests.helpers import shared
from tests.model.original_reference import write_case, write_checkpoint

FAMILIES = [
    ("qwen2", "300M", 5),
    ("qwen3", "300M", 0),
    ("internlm2", "300M", 5),
    ("internlm2", "6B", 0),
    ("llama", "6B", 0),
    ("llama", "300M", 1),
    ("phi3", "300M", 0),
    ("phi3", "6B", 1),
]
SHARED_CASES = ("internvl3_qwen2", "internvl2_internlm2", "intentvcnet_multilayer_qwen2", "intentvcnet_lora_qwen2")


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: "-".join(map(str, family)))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("case") / "case"
    write_case(folder, *request.param)
    return folder


def read_all(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(t.dtype == b[n].dtype and torch.equal(t, b[n]) for n, t in a.items())


def test_numbers_are_those_of_the_specification(case: Path) -> None:
    differences = check_case(case)
    assert differences.hold(), differences


def test_there_and_back_is_bit_exact(case: Path, tmp_path: Path) -> None:
    convert_checkpoint(case / "checkpoint", tmp_path / "hf", "hf")
    convert_checkpoint(tmp_path / "hf", tmp_path / "checkpoint", "original", max_shard_bytes=100_000)
    assert len(list((tmp_path / "checkpoint").glob("*.safetensors"))) > 1
    assert same_bits(read_all(case / "checkpoint"), read_all(tmp_path / "checkpoint"))
    configs = [json.loads((folder / "checkpoint" / "config.json").read_text()) for folder in (case, tmp_path)]
    assert configs[0] == configs[1]
    (tmp_path / "case.safetensors").symlink_to(case / "case.safetensors")
    assert check_case(tmp_path).hold()


@pytest.mark.parametrize("llm", ["qwen2", "internlm2", "phi3"])
def test_transformers_alone_reads_what_is_converted(llm: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "original", llm)
    convert_checkpoint(tmp_path / "original", tmp_path / "hf", "hf")
    model, info = InternVLForConditionalGeneration.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(info.values())
    ours = load_captioner(tmp_path / "original", dtype=torch.float32).state_dict()
    assert all(torch.equal(t, ours[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("name", SHARED_CASES)
def test_recorded_cases(name: str, tmp_path: Path) -> None:
    folder = shared(f"parity/{name}")
    assert check_case(folder).hold()
    convert_checkpoint(folder / "checkpoint", tmp_path / "hf", "hf")
    convert_checkpoint(tmp_path / "hf", tmp_path / "checkpoint", "original")
    assert same_bits(read_all(folder / "checkpoint"), read_all(tmp_path / "checkpoint"))


def test_lora_inside_an_original_checkpoint_is_folded_in(tmp_path: Path) -> None:
    folder = shared("parity/intentvcnet_lora_qwen2")
    merge_checkpoint(folder / "checkpoint", tmp_path / "checkpoint")
    assert not any("lora" in name for name in read_all(tmp_path / "checkpoint"))
    (tmp_path / "case.safetensors").symlink_to(folder / "case.safetensors")
    assert check_case(tmp_path).hold()


@pytest.mark.parametrize(("llm", "module"), [("internlm2", "attention.wqkv"), ("llama", "self_attn.q_proj")])
def test_lora_on_a_fused_projection(llm: str, module: str, tmp_path: Path) -> None:
    """InternLM2's LoRA sits on the fused wqkv: its two matrices are split with it."""
    original = write_checkpoint(tmp_path / "plain", llm)
    name = f"language_model.model.layers.1.{module}"
    rows, columns = original.w[f"{name}.weight"].shape
    down, up = torch.randn(3, columns), torch.randn(rows, 3)
    wrapped = {n.replace("language_model.", "language_model.base_model.model.", 1): t for n, t in original.w.items()}
    name = name.replace("language_model.", "language_model.base_model.model.", 1)
    weight = wrapped.pop(f"{name}.weight")
    wrapped |= {f"{name}.base_layer.weight": weight}
    wrapped |= {f"{name}.lora_A.default.weight": down, f"{name}.lora_B.default.weight": up}
    (tmp_path / "wrapped").mkdir()
    (tmp_path / "wrapped" / "config.json").write_text((tmp_path / "plain" / "config.json").read_text())
    save_file(wrapped, tmp_path / "wrapped" / "model.safetensors")

    original.w[name.replace("base_model.model.", "", 1) + ".weight"] = weight + 2 * up @ down
    save_file(original.w, tmp_path / "plain" / "model.safetensors")
    expected = load_captioner(tmp_path / "plain", dtype=torch.float32).state_dict()
    got = load_captioner(tmp_path / "wrapped", dtype=torch.float32).state_dict()
    assert all(torch.allclose(got[n], t, atol=1e-5) for n, t in expected.items())

    convert_checkpoint(tmp_path / "wrapped", tmp_path / "hf", "hf")
    convert_checkpoint(tmp_path / "hf", tmp_path / "back", "original")
    assert same_bits(read_all(tmp_path / "wrapped"), read_all(tmp_path / "back"))


@pytest.mark.parametrize("name", [*SHARED_CASES, "text_internvl2_5"])
def test_verify_case(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--case", str(shared(f"parity/{name}"))]) == 0
    assert capsys.readouterr().out.endswith("holds\n")


def test_verify_case_says_when_it_does_not_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_case(tmp_path / "case", "qwen2")
    path = tmp_path / "case" / "case.safetensors"
    tensors = {name: t.clone() for name, t in load_file(path).items()}
    # As a share of the largest logit, 2.5.
    tensors["expected_logits"][0, 3, 5] += 1e-3
    save_file(tensors, path)
    assert main(["verify", "--case", str(tmp_path / "case")]) == 1
    out = capsys.readouterr().out
    assert "logits: largest difference 0.0004" in out and "DOES NOT HOLD" in out
