"""The region encoder against a slow twin, its gradients, and what training and bf16 rely on.

Sizes all differ: P=2 pictures, R=3 regions, L=3 levels, C=8 channels, a grid of H=2 by W=5, 6 hidden channels, D=7,
RoIs of 4 by 4 cells.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from internvl_chat.model.controls.region_tokens import RegionEncoder, Regions, Track, numbers_kept
from tests.helpers import randomise

P, R, L, C, H, W, HIDDEN, D, CELLS, GROUPS = 2, 3, 3, 8, 2, 5, 6, 7, 4, 4
SCALES = (3, 2, 1)
GRID = (H, W)
BOXES = torch.tensor([[0.1, 0.25, 0.8, 0.9], [0.4, 0.3, 0.45, 1.0], [0.05, 0.0, 0.5, 0.6]], dtype=torch.float64)
PICTURES = torch.tensor([1, 0, 1])
ABSENT = 1

Array = npt.NDArray[np.float64]


def encoder_of(dtype: torch.dtype = torch.float64) -> RegionEncoder:
    encoder = RegionEncoder(C, D, SCALES, HIDDEN, CELLS, num_fusions=2, num_groups=GROUPS)
    randomise(encoder.parameters())
    return encoder.to(dtype)


def levels_of(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    drawn = torch.randn(L, P, H * W, C, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return tuple(drawn.to(dtype))


def slow_resize(map_CHW: Array, height: int, width: int) -> Array:
    """Bilinear, the corners of both grids upon each other."""
    channels, old_height, old_width = map_CHW.shape
    out = np.zeros((channels, height, width))
    for y in range(height):
        for x in range(width):
            v, u = y * (old_height - 1) / max(height - 1, 1), x * (old_width - 1) / max(width - 1, 1)
            for row in range(old_height):
                for column in range(old_width):
                    weight = max(0.0, 1 - abs(v - row)) * max(0.0, 1 - abs(u - column))
                    out[:, y, x] += weight * map_CHW[:, row, column]
    return out


def slow_conv(map_CHW: Array, kernels: Array, bias: Array | None) -> Array:
    _, height, width = map_CHW.shape
    side = kernels.shape[-1]
    padded = np.pad(map_CHW, ((0, 0), (side // 2,) * 2, (side // 2,) * 2))
    out = np.zeros((len(kernels), height, width))
    for o, kernel in enumerate(kernels):
        for y in range(height):
            for x in range(width):
                out[o, y, x] = (padded[:, y : y + side, x : x + side] * kernel).sum()
    return out if bias is None else out + bias[:, None, None]


def slow_group_norm(map_CHW: Array, weight: Array, bias: Array) -> Array:
    groups = map_CHW.reshape(GROUPS, -1)
    normed = (groups - groups.mean(1, keepdims=True)) / np.sqrt(groups.var(1, keepdims=True) + 1e-5)
    return normed.reshape(map_CHW.shape) * weight[:, None, None] + bias[:, None, None]


def slow_roi_align(map_CHW: Array, box: Array) -> Array:
    """Two by two samples a cell, half a pixel shifted; what lies more than a pixel outside counts as zero."""
    _, height, width = map_CHW.shape
    x1, y1, x2, y2 = box * np.array([width, height, width, height]) - 0.5
    out = np.zeros((len(map_CHW), CELLS, CELLS))
    for i in range(CELLS):
        for j in range(CELLS):
            for a in (0.25, 0.75):
                for b in (0.25, 0.75):
                    y, x = y1 + (i + a) * (y2 - y1) / CELLS, x1 + (j + b) * (x2 - x1) / CELLS
                    if y < -1 or x < -1 or y > height or x > width:
                        continue
                    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
                    for row in range(height):
                        for column in range(width):
                            weight = max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column))
                            out[:, i, j] += weight * map_CHW[:, row, column] / 4
    return out


def slow_layer_norm(row: Array, weight: Array, bias: Array) -> Array:
    return (row - row.mean()) / math.sqrt(row.var() + 1e-5) * weight + bias


def slow_region(encoder: RegionEncoder, levels: list[Array], box: Array) -> Array:
    """One region's token of one picture's levels [N, C], in the order in which the original computes it."""
    p = {name: parameter.detach().numpy() for name, parameter in encoder.named_parameters()}
    maps = []
    for number, (tokens, scale) in enumerate(zip(levels, SCALES, strict=True)):
        height, width = scale * H, scale * W
        x = np.broadcast_to(np.linspace(-1, 1, width), (height, width))
        y = np.broadcast_to(np.linspace(-1, 1, height)[:, None], (height, width))
        placed = np.concatenate([slow_resize(tokens.T.reshape(C, H, W), height, width), np.stack([x, y])])
        maps.append(slow_conv(placed, p[f"level_convs.{number}.weight"], p[f"level_convs.{number}.bias"]))
    for number in range(2):
        mixed = []
        for level, own in enumerate(maps):
            coarser, finer = maps[min(level + 1, L - 1)], maps[max(level - 1, 0)]
            parts = [own[:4], slow_resize(coarser[6:], *own.shape[1:]), slow_resize(finer[4:6], *own.shape[1:])]
            mixed.append(slow_conv(np.concatenate(parts), p[f"fusions.{number}.conv.weight"], None))
        norm = [p[f"fusions.{number}.norm.{leaf}"] for leaf in ("weight", "bias")]
        maps = [np.maximum(slow_group_norm(m, *norm), 0) for m in mixed]
    seen = sum(
        slow_conv(slow_roi_align(m, box), p[f"roi_convs.{n}.weight"], p[f"roi_convs.{n}.bias"])
        for n, m in enumerate(maps)
    )
    region = p["roi_proj.weight"] @ np.maximum(seen, 0).reshape(-1) + p["roi_proj.bias"]
    place = box
    for linear, norm_at in ((0, 2), (3, 5)):
        place = np.maximum(p[f"position.{linear}.weight"] @ place + p[f"position.{linear}.bias"], 0)
        place = slow_layer_norm(place, p[f"position.{norm_at}.weight"], p[f"position.{norm_at}.bias"])
    return p["out.weight"] @ (region + place) + p["out.bias"]


def test_tokens_equal_their_slow_twin() -> None:
    encoder, levels = encoder_of(), levels_of()
    expected = [
        slow_region(encoder, [level[picture].numpy() for level in levels], box.numpy())
        for box, picture in zip(BOXES, PICTURES.tolist(), strict=True)
    ]
    tokens = encoder(levels, BOXES, PICTURES, GRID).detach().numpy()
    assert tokens.shape == (R, D)
    np.testing.assert_allclose(tokens, np.stack(expected), rtol=0, atol=1e-9 * np.abs(expected).max())


def test_gradient_by_levels_and_parameters() -> None:
    encoder = encoder_of()
    names = [name for name, _ in encoder.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in encoder.parameters()]
    levels = [level.clone().requires_grad_() for level in levels_of()]

    def output(*tensors: torch.Tensor) -> torch.Tensor:
        parameters = dict(zip(names, tensors[L:], strict=True))
        return torch.func.functional_call(encoder, parameters, (tensors[:L], BOXES, PICTURES, GRID))

    assert torch.autograd.gradcheck(output, (*levels, *values), fast_mode=True)


def test_absent_region_knows_nothing_of_the_picture() -> None:
    encoder = encoder_of()
    boxes = BOXES.clone()
    boxes[ABSENT] = 0
    one = encoder(levels_of(), boxes, PICTURES, GRID)
    other = encoder([2 - level for level in levels_of()], boxes, PICTURES, GRID)
    changed = [not torch.equal(a, b) for a, b in zip(one, other, strict=True)]
    assert changed == [number != ABSENT for number in range(R)]


def test_regions_of_one_picture_do_not_see_each_other() -> None:
    encoder, levels = encoder_of(), levels_of()
    together = encoder(levels, BOXES, PICTURES, GRID)
    for number in range(R):
        alone = encoder(levels, BOXES[number : number + 1], PICTURES[number : number + 1], GRID)
        torch.testing.assert_close(alone[0], together[number])


def test_bf16_stays_within_two_percent_of_fp32() -> None:
    """Against fp32 with the same rounded weights: what is left is the rounding of what is computed."""
    half = encoder_of(torch.bfloat16)
    full = encoder_of(torch.float32)
    full.load_state_dict({name: tensor.float() for name, tensor in half.state_dict().items()})
    levels = levels_of(torch.bfloat16)
    low = half(levels, BOXES, PICTURES, GRID)
    high = full([level.float() for level in levels], BOXES, PICTURES, GRID)
    assert low.dtype == torch.bfloat16
    assert (low.float() - high).norm() / high.norm() < 0.02


@pytest.mark.parametrize(
    ("levels", "boxes", "grid", "message"),
    [
        (levels_of()[:2], BOXES, GRID, "expected 3 levels, got 2"),
        (levels_of(), BOXES[:2], GRID, r"a box a region, \[3, 4\], got \[2, 4\]"),
        (levels_of(), BOXES, (H, H), "10 patches do not fill a grid of 2 x 2"),
    ],
)
def test_what_does_not_fit_is_named(
    levels: tuple[torch.Tensor, ...], boxes: torch.Tensor, grid: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encoder_of()(levels, boxes, PICTURES, grid)


@pytest.mark.parametrize(("scales", "num_fusions"), [((8, 4, 2, 1), 5), ((4, 2, 1), 2)])
def test_what_is_kept_for_the_backward_pass_is_as_reckoned(scales: tuple[int, ...], num_fusions: int) -> None:
    encoder = RegionEncoder(32, 24, scales, hidden_width=20, roi_cells=3, num_fusions=num_fusions, num_groups=4)
    own = {parameter.untyped_storage().data_ptr() for parameter in encoder.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    levels = [torch.randn(3, 36, 32) for _ in scales]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # As it is called where the whole encoder is not computed again.
        encoder.forward(levels, torch.tensor([[0.1, 0.2, 0.6, 0.9]] * 3), torch.arange(3), (6, 6))
    numbers = sum(t.untyped_storage().nbytes() // t.element_size() for at, t in kept.items() if at not in own)
    assert numbers == pytest.approx(numbers_kept(3, 36, scales, 32, num_fusions), rel=0.06)


def test_channels_that_cannot_be_grouped_are_refused() -> None:
    with pytest.raises(ValueError, match="48 channels: expected a multiple of 64"):
        RegionEncoder(48, D)


def test_regions_are_read_off_tiles_sample_by_sample() -> None:
    """Two samples of 3 and 2 tiles with up to two objects, and one of one tile without any between them."""
    roles = torch.tensor([[1, 0], [3, 2], [1, 0], [0, 0], [0, 1], [0, 3]])
    slots = torch.tensor([[3, 1], [-1, -1], [-1, -1], [0, 0], [0, 2], [-1, -1]])
    boxes = torch.arange(6 * 2 * 4).view(6, 2, 4) * 10
    regions = Regions.of(boxes, roles, slots)
    assert regions.tile_R.tolist() == [0, 1, 1, 2, 4, 5]
    assert regions.boxes_R4[2].tolist() == pytest.approx([0.12, 0.13, 0.14, 0.15])
    assert regions.tracks == (Track(1, (0, 1, 3), 3), Track(2, (), 1), Track(5, (4, 5), 2))


def test_slots_are_filled_with_the_key_and_one_of_each_cluster() -> None:
    """Of the first track's five tiles two are alike and three are alike; the second has fewer tiles than slots."""
    tokens = torch.tensor([[0.0, 9.0], [5.0, 5.0], [0.1, 9.0], [5.0, 5.5], [5.0, 6.0], [7.0, 7.0], [8.0, 8.0]])
    tracks = (Track(1, (0, 1, 2, 3, 4), 3), Track(6, (5,), 3), Track(6, (), 2))
    regions = Regions(torch.arange(7), torch.zeros(7, 4), tracks)
    assert regions.fill(tokens).tolist() == tokens[[1, 0, 3, 6, 5, 5, 6, 6]].tolist()
