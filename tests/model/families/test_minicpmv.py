"""MiniCPM-Llama3-V 2.5: the original's recorded results, its files both ways, and a resampler told in plain words."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from internvl_chat.__main__ import main
from internvl_chat.contracts import UserError
from internvl_chat.model.checkpoint import load_captioner
from internvl_chat.model.export import convert_checkpoint
from internvl_chat.model.families.minicpmv.configuration import captioner_config
from internvl_chat.model.families.minicpmv.model import MiniCPMVForConditionalGeneration
from internvl_chat.model.families.minicpmv.original import native_config
from internvl_chat.model.families.minicpmv.resampler import HEAD_WIDTH, Resampler
from internvl_chat.model.loading import load_config
from internvl_chat.model.parity import check_case
from internvl_chat.vision import Vision, joined
from tests.helpers import shared
from tests.minicpmv import QUERIES, WIDTH, original_fields, write_minicpmv

PATCH_PX = 14


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_minicpmv(tmp_path_factory.mktemp("minicpmv") / "base")


@pytest.fixture(scope="module")
def model(base: Path) -> MiniCPMVForConditionalGeneration:
    loaded = load_captioner(base, dtype=torch.float32)
    assert isinstance(loaded, MiniCPMVForConditionalGeneration)
    return loaded


def shown(*grids: tuple[int, int], seed: int = 1) -> Vision:
    """Pictures of noise with so many rows and columns of patches."""
    count = sum(rows * columns for rows, columns in grids)
    patches = torch.randn(count, 3, PATCH_PX, PATCH_PX, generator=torch.Generator().manual_seed(seed))
    return {"patches": patches, "grids": torch.tensor(grids)}


def prompt(model: MiniCPMVForConditionalGeneration, num_pictures: int, *words: int) -> torch.Tensor:
    return torch.tensor([[3, *[model.config.image_token_id] * (QUERIES * num_pictures), *words]])


def test_recorded_results_of_the_original() -> None:
    differences = check_case(shared("parity/minicpmv2_5"))
    assert differences.largest.keys() == {"logits", "loss", "visual_tokens"}
    assert differences.hold(), differences


def test_the_originals_files_come_back_bit_by_bit(tmp_path: Path) -> None:
    checkpoint = shared("parity/minicpmv2_5") / "checkpoint"
    convert_checkpoint(checkpoint, tmp_path / "native", "hf")
    convert_checkpoint(tmp_path / "native", tmp_path / "back", "original")
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    configs = [json.loads((folder / "config.json").read_text()) for folder in (checkpoint, tmp_path / "back")]
    assert configs[0] == configs[1]


def test_the_configuration_is_the_originals(tmp_path: Path) -> None:
    config = native_config(original_fields(vocab_size=300, drop_vision_last_layer=True), tmp_path)
    assert (config.vision_config.num_hidden_layers, config.image_seq_length, config.scale_resolution) == (2, 5, 448)
    published = native_config({"model_type": "minicpmv", "vocab_size": 128256, "hidden_size": 4096}, tmp_path)
    tower = published.vision_config
    assert (tower.hidden_size, tower.num_hidden_layers, tower.image_size, published.image_token_id) == (
        1152,
        27,
        980,
        128002,
    )
    with pytest.raises(UserError, match=r"config.json: is MiniCPM-V 2.6: expected 2.5"):
        native_config(original_fields(vocab_size=300, version=2.6), tmp_path)
    with pytest.raises(UserError, match="no box adapter was made for"):
        captioner_config(config, 1)


def slow_resampler(module: Resampler, patches: torch.Tensor, rows: int, columns: int) -> list[list[float]]:
    """One picture's patches [P, C], a number at a time."""
    width = module.proj.shape[0]
    quarter = width // 4

    def position(row: int, column: int) -> list[float]:
        angles = [[place / 10000 ** (i / quarter) for i in range(quarter)] for place in (column, row)]
        return [turn(angle) for half in angles for turn in (math.sin, math.cos) for angle in half]

    values = module.kv_norm(module.kv_proj(patches))
    places = torch.tensor([position(row, column) for row in range(rows) for column in range(columns)]).double()
    queries = module.q_proj(module.query_norm(module.query))
    keys, contents = module.k_proj(values + places), module.v_proj(values)
    read = torch.zeros_like(queries)
    for head in range(width // HEAD_WIDTH):
        channels = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
        for number, query in enumerate(queries):
            scores = [float(query[channels] @ key[channels]) / math.sqrt(HEAD_WIDTH) for key in keys]
            weights = [math.exp(score - max(scores)) for score in scores]
            for weight, content in zip(weights, contents, strict=True):
                read[number, channels] += weight / sum(weights) * content[channels]
    return (module.post_norm(module.out_proj(read)) @ module.proj).tolist()


def test_the_resampler_reads_every_picture_as_it_would_alone() -> None:
    torch.manual_seed(0)
    module = Resampler(num_queries=3, in_width=6, width=2 * HEAD_WIDTH).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
        grids = torch.tensor([[2, 5], [4, 1], [3, 3]])
        patches = torch.randn(3, 10, 6, dtype=torch.float64)
        together = module(patches, grids)
        for picture, (rows, columns) in enumerate(grids.tolist()):
            expected = slow_resampler(module, patches[picture, : rows * columns], rows, columns)
            # Positions are kept in fp32, as the original's table is.
            assert torch.allclose(together[picture], torch.tensor(expected, dtype=torch.float64), atol=1e-6)
        patches[1, 4:] = 1e3
        assert torch.equal(together[1], module(patches, grids)[1])


def test_gradients_of_the_resampler() -> None:
    torch.manual_seed(1)
    module = Resampler(num_queries=2, in_width=3, width=HEAD_WIDTH).double()
    torch.nn.init.normal_(module.query, std=0.5)
    torch.nn.init.normal_(module.proj, std=0.1)
    patches = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    grids = torch.tensor([[2, 2], [1, 3]])
    assert torch.autograd.gradcheck(lambda given: module(given, grids)[..., ::17], (patches,), fast_mode=True)


def test_pictures_of_several_samples_and_sizes_do_not_disturb_each_other(
    model: MiniCPMVForConditionalGeneration,
) -> None:
    one, two = shown((2, 3)), shown((1, 1), (4, 2), seed=2)
    ids, together = prompt(model, 1, 5, 7), joined([one, two])
    with torch.inference_mode():
        alone, _ = model.model.embed_prompt(ids, one)
        both = model.model.picture_embeddings(together["patches"], together["grids"])
    assert both.shape == (3, QUERIES, WIDTH)
    places = ids[0] == model.config.image_token_id
    assert torch.allclose(alone[0][places], both[0], atol=1e-5)
    assert torch.equal(alone[0][~places], model.get_input_embeddings()(ids)[0][~places])
    with pytest.raises(ValueError, match="5 places in the text for 10 embeddings of pictures"):
        model.model.embed_prompt(ids, two)


def test_a_row_of_text_alone_gives_every_part_a_gradient(model: MiniCPMVForConditionalGeneration) -> None:
    ids = torch.tensor([[3, 8, 5, 11]])
    plain = model(input_ids=ids, labels=ids).loss
    loss = model(input_ids=ids, labels=ids, vision=shown((1, 1))).loss
    loss.backward()
    assert torch.allclose(loss, plain)
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    model.zero_grad(set_to_none=True)


def test_inspect_knows_its_parts(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(base)]) == 0
    said = capsys.readouterr().out
    assert "original layout, llama language model, template minicpmv2_5, 0 box adapters" in said
    parts = load_config(base)
    assert parts.model_type == "minicpmv2_5" and "projector" in said
