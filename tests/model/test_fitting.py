"""What loading may change on request: tile size, vocabulary, tied embeddings, files of other kinds."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.core_model_loading import GLOBAL_WORKERS

from internvl_chat.contracts import UserError
from internvl_chat.model.checkpoint import load_base, load_captioner
from internvl_chat.model.conversion.weight_files import LazyTensor
from internvl_chat.model.families.internvl.parts import resize_positions
from internvl_chat.model.trainable import TrainablePart
from internvl_chat.planning.inspection import inspect_checkpoint
from tests.model.original_reference import GRID, IMAGE_ID, TILE_PX, VOCAB, WIDTH, D, inputs, write_checkpoint


def test_bin_files_and_shards_of_them(tmp_path: Path) -> None:
    original = write_checkpoint(tmp_path / "one", "phi3")
    expected = load_captioner(tmp_path / "one", dtype=torch.float32).state_dict()
    (tmp_path / "one" / "model.safetensors").unlink()
    names = sorted(original.w)
    halves = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
    for file, part in halves.items():
        torch.save({name: original.w[name] for name in part}, tmp_path / "one" / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (tmp_path / "one" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    got = load_captioner(tmp_path / "one", dtype=torch.float32).state_dict()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
    (tmp_path / "one" / "pytorch_model-2.bin").write_bytes(b"no tensors here")
    with pytest.raises(UserError, match=r"pytorch_model-2\.bin: is cut off or no file of tensors"):
        load_captioner(tmp_path / "one")


def test_tensors_go_to_their_device_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without memory stands for a GPU: what is left is what each rank holds of the host's memory."""
    original = write_checkpoint(tmp_path / "base", "qwen2")
    alive: dict[int, int] = {}
    most: list[int] = [0]
    indexed = LazyTensor.__getitem__

    def watched(lazy: LazyTensor, index: object) -> torch.Tensor:
        tensor = indexed(lazy, index).clone()
        alive[id(tensor)] = tensor.nbytes
        weakref.finalize(tensor, alive.pop, id(tensor))
        most[0] = max(most[0], sum(alive.values()))
        return tensor

    monkeypatch.setattr(LazyTensor, "__getitem__", watched)
    model = load_captioner(tmp_path / "base", dtype=torch.float32, device=torch.device("meta"))
    read = [p for p in model.parameters() if p.device.type == "meta"]
    assert sum(p.nbytes for p in read) == sum(w.nbytes for w in original.w.values())
    assert not alive
    # As many are read at a time as transformers has threads.
    largest = sorted((w.nbytes for w in original.w.values()), reverse=True)
    assert 0 < most[0] <= sum(largest[:GLOBAL_WORKERS])


def test_missing_output_layer_shares_the_embeddings(tmp_path: Path) -> None:
    original = write_checkpoint(tmp_path / "tied", "qwen2")
    del original.w["language_model.lm_head.weight"]
    save_file(original.w, tmp_path / "tied" / "model.safetensors")
    model = load_captioner(tmp_path / "tied", dtype=torch.float32)
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, original.w["language_model.model.embed_tokens.weight"])


def test_new_rows_are_the_mean_of_the_old(tmp_path: Path) -> None:
    original = write_checkpoint(tmp_path / "base", "llama")
    tokens = {"num_tokens": VOCAB + 4, "image_token_id": VOCAB + 2}
    model = load_base(str(tmp_path / "base"), num_adapter_layers=1, dtype=torch.float32, **tokens)
    assert model.config.image_token_id == VOCAB + 2
    for table, name in (
        (model.lm_head.weight, "language_model.lm_head.weight"),
        (model.model.language_model.embed_tokens.weight, "language_model.model.embed_tokens.weight"),
    ):
        assert table.shape == (VOCAB + 4, D)
        assert torch.equal(table[:VOCAB], original.w[name])
        assert torch.allclose(table[VOCAB:], original.w[name].double().mean(0).float().expand(4, -1), atol=1e-7)


def test_fewer_tokens_than_rows_leave_the_padding(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "base", "llama")
    model = load_base(
        str(tmp_path / "base"), num_adapter_layers=1, dtype=torch.float32, num_tokens=VOCAB - 9, image_token_id=5
    )
    assert model.lm_head.weight.shape == (VOCAB, D)


def test_another_tile_size_resizes_the_positions(tmp_path: Path) -> None:
    """Resized once while loading, or anew in every forward: the same features."""
    original = write_checkpoint(tmp_path / "base", "qwen2")
    side_px = TILE_PX + 20
    pixels = torch.randn(2, 3, side_px, side_px)
    models = [
        load_base(str(tmp_path / "base"), num_adapter_layers=1, dtype=torch.float32, image_size_px=size)
        for size in (None, side_px)
    ]
    assert models[1].config.image_seq_length == (GRID // 2 + 1) ** 2
    with torch.no_grad():
        features = [model.model.get_image_features(pixels, return_dict=True).pooler_output for model in models]
    assert torch.allclose(*features, atol=1e-5)
    table = original.w["vision_model.embeddings.position_embedding"]
    assert resize_positions(table, 1 + 8 * 8).shape == (1, 65, WIDTH)
    assert torch.allclose(resize_positions(table, 1 + GRID * GRID), table, atol=1e-6)


def test_force_image_size_of_an_original_config(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "base", "qwen2")
    path = tmp_path / "base" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "force_image_size": TILE_PX - 20}))
    config = load_captioner(tmp_path / "base", dtype=torch.float32).config
    assert list(config.vision_config.image_size) == [TILE_PX - 20] * 2
    assert config.image_seq_length == (GRID // 2 - 1) ** 2


def test_norm_over_space_works_at_one_size_only(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "base", "qwen2", adapters=3)
    with pytest.raises(UserError, match=f"expected {TILE_PX}"):
        load_base(str(tmp_path / "base"), num_adapter_layers=3, dtype=torch.float32, image_size_px=TILE_PX + 20)


def test_special_token_ids_are_looked_up_by_name(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "base", "qwen2")
    (tmp_path / "base" / "added_tokens.json").write_text(json.dumps({"<IMG_CONTEXT>": 41, "<|im_end|>": 17}))
    config = load_captioner(tmp_path / "base", dtype=torch.float32).config
    assert config.image_token_id == 41
    assert config.text_config.eos_token_id == [2, 17]


def test_boxes_reach_adapters_of_a_plain_base(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "base", "internlm2", vit="6B")
    model = load_base(str(tmp_path / "base"), num_adapter_layers=2, dtype=torch.float32).eval()
    model.config.image_token_id = IMAGE_ID
    given = inputs()
    with torch.no_grad():
        plain, adapted = (
            model(input_ids=given["input_ids"], vision={"pixel_values": given["pixel_values"], **boxes}).logits
            for boxes in ({}, {"boxes": given["bboxes"]})
        )
    assert torch.equal(plain, adapted), "a fresh adapter adds nothing"


# Sizes as published, and the family table of the specification.
VIT_300M = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
VIT_300M |= {"qkv_bias": True, "qk_normalization": False, "norm_type": "layer_norm"}
VIT_6B = {"hidden_size": 3200, "num_hidden_layers": 45, "num_attention_heads": 25, "intermediate_size": 12800}
VIT_6B |= {"qkv_bias": False, "qk_normalization": True, "norm_type": "rms_norm"}
PUBLISHED = {
    "InternVL3-8B": (7.94e9, VIT_300M, "Qwen2ForCausalLM", 3584, 28, 28, 4, 18944, 151674),
    "InternVL3-14B": (15.12e9, VIT_300M, "Qwen2ForCausalLM", 5120, 48, 40, 8, 13824, 151674),
    "InternVL3-38B": (38.39e9, VIT_6B, "Qwen2ForCausalLM", 5120, 64, 40, 8, 27648, 151674),
    "InternVL2-2B": (2.21e9, VIT_300M, "InternLM2ForCausalLM", 2048, 24, 16, 8, 8192, 92553),
    "InternVL2-26B": (25.5e9, VIT_6B, "InternLM2ForCausalLM", 6144, 48, 48, 8, 16384, 92553),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_inspect_counts_published_sizes_from_a_config_alone(name: str, tmp_path: Path) -> None:
    parameters, vit, llm_class, width, layers, heads, kv_heads, inner, vocab = PUBLISHED[name]
    llm = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    llm |= {"num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": vocab}
    config = {"model_type": "internvl_chat", "vision_config": {**vit, "image_size": 448, "patch_size": 14}}
    config |= {"llm_config": {**llm, "architectures": [llm_class]}, "template": "internvl2_5"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    trained = TrainablePart(use_llm_lora=128, freeze_llm=False, freeze_mlp=False, freeze_backbone=True)
    report = inspect_checkpoint(str(tmp_path), trained)
    assert report.parameters == pytest.approx(parameters, rel=0.01)
    assert report.trained.keys() == {"box adapters", "projector", "LoRA"}
    assert report.training_bytes["weights"] > report.prediction_bytes["weights"] >= 2 * report.parameters
    assert "memory to train" in report.as_text()


def test_original_weights_are_read_as_they_are(tmp_path: Path) -> None:
    """bf16 to bf16 and back to the original layout: not a bit is lost."""
    write_checkpoint(tmp_path / "base", "internlm2")
    path = tmp_path / "base" / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path)
    model = load_captioner(tmp_path / "base", dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
