"""Artemis' own checkpoints: each stage's files come together to one model, tensor by tensor, or say what is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from internvl_chat.contracts import UserError
from internvl_chat.model.checkpoint import load_captioner
from internvl_chat.model.controls.region_tokens import KEY_ROLE, TRACK_ROLE
from internvl_chat.model.conversion.weight_files import LazyTensor
from internvl_chat.model.families.artemis.model import ArtemisForConditionalGeneration
from internvl_chat.model.families.artemis.original import (
    native_config,
    original_config,
    weight_map,
)
from internvl_chat.model.families.artemis.recorded import named_weight
from internvl_chat.model.loading import open_native

TOWER = {
    "model_type": "clip_vision_model",
    "hidden_size": 64,
    "intermediate_size": 24,
    "num_hidden_layers": 10,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
LLAMA = {
    "model_type": "llava",
    "architectures": ["LlavaLlamaForCausalLM"],
    "vocab_size": 41,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-5,
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": -2,
    "mm_hidden_size": 64,
}
RANK, ALPHA = 3, 6
LORA_PATH = "model.layers.1.self_attn.q_proj"


def meta(shape: list[int]) -> LazyTensor:
    """A tensor of which the shape is all that is asked."""
    return LazyTensor(torch.Size(shape), torch.float32, lambda: torch.empty(shape))


@dataclass(frozen=True)
class Stages:
    """Folders as the original leaves them, and the tensors that they must come to."""

    vicuna: Path
    tower: Path
    stage1: Path
    stage2: Path
    stage3: Path


def write(folder: Path, config: dict[str, object], **files: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for name, tensors in files.items():
        if name.endswith("_bin"):
            torch.save(tensors, folder / f"{name.removesuffix('_bin')}.bin")
        else:
            save_file(tensors, folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    root = tmp_path_factory.mktemp("artemis")
    tower = root / "clip"
    fields = LLAMA | {"mm_image_tower": str(tower)}
    tower.mkdir()
    (tower / "config.json").write_text(json.dumps(TOWER))
    config = native_config(fields, root)
    with torch.device("meta"):
        names = {name: list(t.shape) for name, t in ArtemisForConditionalGeneration(config).state_dict().items()}
    original = weight_map().to_original({name: meta(shape) for name, shape in names.items()})
    drawn = {name: named_weight(name, list(tensor.shape)) for name, tensor in original.items()}
    prefix = "model.image_tower.vision_tower."
    seen = {n.removeprefix(prefix): t for n, t in drawn.items() if n.startswith(prefix)}
    projector = {n: t for n, t in drawn.items() if ".mm_projector." in n}
    regions = {n: t for n, t in drawn.items() if ".spi_model." in n}
    language = {n: t for n, t in drawn.items() if n not in projector and n not in regions and not n.startswith(prefix)}
    tower_text = {"text_model.final_layer_norm.weight": torch.ones(5), "logit_scale": torch.ones(())}
    save_file(seen | tower_text, tower / "model.safetensors")
    wrapped = {f"base_model.model.{n}": 2 * t for n, t in (projector | regions).items()}
    lora = {
        f"base_model.model.{LORA_PATH}.lora_A.weight": named_weight("down", [RANK, 12]),
        f"base_model.model.{LORA_PATH}.lora_B.weight": named_weight("up", [12, RANK]),
    }
    stage3 = write(root / "artemis-lora", fields, adapter_model_bin=lora, non_lora_trainables_bin=wrapped)
    (stage3 / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA}))
    old_buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    return Stages(
        vicuna=write(root / "vicuna", fields, pytorch_model_bin=language | old_buffer),
        tower=tower,
        stage1=write(root / "stage1", fields, mm_projector_bin={n: 3 * t for n, t in projector.items()}),
        stage2=write(root / "stage2", fields, model=language | projector),
        stage3=stage3,
    )


def values_of(folder: Path, base: Path) -> dict[str, torch.Tensor]:
    """The tensors by the original's names, LoRA folded in."""
    return {name: tensor.read() for name, tensor in weight_map().to_original(open_native(folder, str(base))).items()}


def test_stage_1_is_vicuna_with_its_projector(stages: Stages) -> None:
    values = values_of(stages.stage1, stages.vicuna)
    name = "model.mm_projector.2.weight"
    torch.testing.assert_close(values[name], 3 * named_weight(name, [12, 12]))
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(values[name], named_weight(name, [20, 12]))
    assert not any(".spi_model." in name or "inv_freq" in name for name in values)


def test_stage_3_is_its_base_with_all_that_it_trained(stages: Stages) -> None:
    values = values_of(stages.stage3, stages.stage2)
    for name in ("model.mm_projector.0.weight", "model.spi_model.mlvl_fuse.fuse_convs.4.conv.weight"):
        torch.testing.assert_close(values[name], 2 * named_weight(name, list(values[name].shape)))
    weight = named_weight(f"{LORA_PATH}.weight", [12, 12])
    update = ALPHA / RANK * named_weight("up", [12, RANK]) @ named_weight("down", [RANK, 12])
    torch.testing.assert_close(values[f"{LORA_PATH}.weight"], weight + update)
    name = "model.image_tower.vision_tower.vision_model.encoder.layers.9.mlp.fc1.weight"
    torch.testing.assert_close(values[name], named_weight(name, [24, 64]))


def test_stage_3_fills_a_whole_model_that_answers(stages: Stages) -> None:
    model: Any = load_captioner(stages.stage3, base_path=str(stages.stage2), dtype=torch.float32)
    config = model.config
    ids = torch.tensor([[1, config.region_token_id, config.region_token_id, 7]])
    vision = {
        "pixel_values": torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0)),
        "region_boxes": torch.tensor([[[100, 200, 600, 900]], [[300, 0, 1000, 500]]]),
        "region_roles": torch.tensor([[KEY_ROLE], [TRACK_ROLE]]),
        "region_slots": torch.tensor([[2], [-1]]),
    }
    with torch.inference_mode():
        logits = model(input_ids=ids, vision=vision).logits
        moved = model(input_ids=ids, vision={**vision, "region_boxes": vision["region_boxes"].flip(0)}).logits
    assert logits.shape == (1, 4, LLAMA["vocab_size"]) and logits.isfinite().all()
    assert (logits - moved)[0, -1].abs().max() > 1e-3


def test_names_and_configuration_go_both_ways(stages: Stages) -> None:
    fields = json.loads((stages.stage2 / "config.json").read_text())
    config = native_config(fields, stages.stage2)
    assert original_config(config) == fields
    config.original = None
    again = native_config(original_config(config) | {"mm_image_tower": str(stages.tower)}, stages.stage2)
    assert again.text_config.to_dict() == config.text_config.to_dict()
    assert again.vision_config.to_dict() == config.vision_config.to_dict()


def test_the_published_tower_needs_no_folder_for_its_geometry() -> None:
    config = native_config(LLAMA | {"mm_image_tower": "openai/clip-vit-large-patch14"}, Path("."))
    assert (config.vision_config.num_hidden_layers, config.image_seq_length, config.video_seq_length) == (24, 256, 356)
    assert (config.image_token_id, config.video_token_id, config.region_token_id) == (41, 42, 43)


def test_what_cannot_be_put_together_says_why(stages: Stages, tmp_path: Path) -> None:
    fields = LLAMA | {"mm_image_tower": str(stages.tower)}
    with pytest.raises(UserError, match="was trained on its base, which is not there; give its place"):
        open_native(stages.stage3)
    wide = {"model.mm_projector.0.weight": torch.zeros(13, 64)}
    base = write(tmp_path / "wide", fields, model=wide)
    with pytest.raises(UserError, match=r"linear_1.weight is \[12, 64\], its base's .* is \[13, 64\]: give the base"):
        open_native(stages.stage3, str(base))
    base = write(tmp_path / "wide_language", fields, model={f"{LORA_PATH}.weight": torch.zeros(13, 13)})
    with pytest.raises(UserError, match=r"lora_A.default.weight is \[3, 12\], the base has \[13, 13\]"):
        open_native(stages.stage3, str(base))
    cut = write(tmp_path / "cut", fields, non_lora_trainables_bin={})
    (cut / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="has a adapter_config.json but no adapter_model"):
        open_native(cut, str(stages.stage2))


def test_a_tower_that_is_nowhere_is_named(stages: Stages, tmp_path: Path) -> None:
    one = {"model.norm.weight": torch.ones(12)}
    published = write(tmp_path / "published", LLAMA | {"mm_image_tower": "openai/clip-vit-large-patch14"}, model=one)
    with pytest.raises(UserError, match="lack the tower, openai/clip-vit-large-patch14, which is no folder"):
        open_native(published)
    other = write(tmp_path / "text_model", TOWER, model={"text_model.final_layer_norm.weight": torch.ones(5)})
    fields = LLAMA | {"mm_image_tower": str(other)}
    with pytest.raises(UserError, match="holds no CLIP vision tower"):
        open_native(write(tmp_path / "other", fields, model=one))


def test_an_unknown_tensor_is_named(stages: Stages, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "odd", LLAMA | {"mm_image_tower": str(stages.tower)}, model={"model.resampler.weight": torch.ones(1)}
    )
    with pytest.raises(UserError, match="odd: unknown tensor model.resampler.weight"):
        open_native(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear': Artemis has 'mlp2x_gelu'"),
        ({"mm_image_tower": "someone/other-tower"}, "mm_image_tower is 'someone/other-tower'"),
    ],
)
def test_other_models_are_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        native_config(LLAMA | change, Path("."))


def test_a_pickle_of_anything_but_tensors_is_refused(stages: Stages, tmp_path: Path) -> None:
    folder = write(tmp_path / "evil", LLAMA | {"mm_image_tower": str(stages.tower)})
    torch.save({"model.mm_projector.0.weight": Path("x")}, folder / "mm_projector.bin")
    with pytest.raises(UserError, match="mm_projector.bin: is cut off or no file of tensors"):
        open_native(folder, str(stages.vicuna))
