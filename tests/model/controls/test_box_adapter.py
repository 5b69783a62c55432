"""The box adapter against a slow twin, and what training relies on.

Sizes all differ: F=2 frames, C=12 channels, a grid of H=3 by W=5.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.func import functional_call

from internvl_chat.model.controls.box_adapter import BoxAdapter, boxes_present, roi_cells
from tests.helpers import randomise

F, C, H, W = 2, 12, 3, 5
BOXES = torch.tensor([[105, 230, 870, 940], [400, 333, 1000, 670]])
ONE_ABSENT = torch.tensor([[105, 230, 870, 940], [0, 0, 0, 0]])

Array = npt.NDArray[np.float64]


def adapter_of(dtype: torch.dtype = torch.float64) -> BoxAdapter:
    """An adapter whose every weight is random, so that no term is hidden by a zero."""
    adapter = BoxAdapter(C)
    randomise(adapter.parameters())
    return adapter.to(dtype)


def tokens_of(dtype: torch.dtype = torch.float64, seed: int = 1) -> torch.Tensor:
    return torch.randn(F, H * W, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def slow_bilinear(channel_HW: Array, y: float, x: float) -> float:
    height, width = channel_HW.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    total = 0.0
    for row in range(height):
        for column in range(width):
            weight = max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column))
            total += weight * channel_HW[row, column]
    return total


def slow_roi_align(map_CHW: Array, box: list[int], cells: int = 7) -> Array:
    """RoIAlign with as many samples a bin as the box needs, no half-pixel shift, boxes at least one cell wide."""
    channels, height, width = map_CHW.shape
    x1, y1, x2, y2 = (v / 1000 * side for v, side in zip(box, (width, height, width, height), strict=True))
    bin_w, bin_h = max(x2 - x1, 1.0) / cells, max(y2 - y1, 1.0) / cells
    steps_y, steps_x = math.ceil(bin_h), math.ceil(bin_w)
    out = np.zeros((channels, cells, cells))
    for c in range(channels):
        for i in range(cells):
            for j in range(cells):
                samples = [
                    slow_bilinear(
                        map_CHW[c],
                        y1 + (i + (v + 0.5) / steps_y) * bin_h,
                        x1 + (j + (u + 0.5) / steps_x) * bin_w,
                    )
                    for v in range(steps_y)
                    for u in range(steps_x)
                ]
                out[c, i, j] = sum(samples) / len(samples)
    return out


def slow_gelu(values: Array) -> Array:
    return np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in values.flat]).reshape(values.shape)


def slow_conv3(map_CHW: Array, kernels: Array, bias: Array | None, depthwise: bool = False) -> Array:
    _, height, width = map_CHW.shape
    padded = np.pad(map_CHW, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(kernels), height, width))
    for o, kernel in enumerate(kernels):
        inputs = padded[o : o + 1] if depthwise else padded
        for y in range(height):
            for x in range(width):
                out[o, y, x] = (inputs[:, y : y + 3, x : x + 3] * kernel).sum()
    return out if bias is None else out + bias[:, None, None]


def slow_norm(tokens_NC: Array, weight: Array) -> Array:
    return np.stack([weight * t / math.sqrt(sum(v * v for v in t) / len(t) + 1e-6) for t in tokens_NC])


def slow_adapter(adapter: BoxAdapter, tokens_NC: Array, box: list[int]) -> Array:
    """One frame, as the specification says it, in plain loops and float64."""
    p = {name: parameter.detach().numpy() for name, parameter in adapter.named_parameters()}

    def linear(name: str, rows: Array) -> Array:
        bias = p.get(f"{name}.bias", 0.0)
        return np.stack([p[f"{name}.weight"] @ row + bias for row in rows])

    if box[2] <= box[0] or box[3] <= box[1]:
        return tokens_NC
    normed = slow_norm(tokens_NC, p["attention_norm.weight"])
    roi = slow_roi_align(normed.T.reshape(C, H, W), box)
    roi = slow_conv3(roi, p["roi_conv.weight"], p["roi_conv.bias"])
    cells = linear("roi_proj", slow_gelu(roi.reshape(2 * C, 49).T))
    queries, keys, values = linear("query", normed), linear("key", cells), linear("value", cells)
    attended = np.zeros_like(tokens_NC)
    for n, query in enumerate(queries):
        scores = np.array([math.exp(query @ key / math.sqrt(C)) for key in keys])
        attended[n] = sum(s * v for s, v in zip(scores / scores.sum(), values, strict=True))
    adapted = tokens_NC + linear("attention_out", attended)
    hidden = linear("ffn_in", slow_norm(adapted, p["ffn_norm.weight"]))
    spread = slow_conv3(hidden.T.reshape(4 * C, H, W), p["ffn_depthwise.weight"], None, depthwise=True)
    rows = spread.reshape(4 * C, H * W).T
    return adapted + linear("ffn_out", slow_gelu(rows[:, : 2 * C]) * rows[:, 2 * C :])


@pytest.mark.parametrize("boxes", [BOXES, ONE_ABSENT, torch.tensor([[990, 0, 1000, 8], [0, 0, 1000, 1000]])])
def test_adapter_equals_its_slow_twin(boxes: torch.Tensor) -> None:
    adapter, tokens = adapter_of(), tokens_of()
    expected = np.stack([slow_adapter(adapter, t.numpy(), b) for t, b in zip(tokens, boxes.tolist(), strict=True)])
    assert np.abs(expected - tokens.numpy()).max() > 0.1
    np.testing.assert_allclose(adapter(tokens, boxes, (H, W)).detach().numpy(), expected, rtol=0, atol=1e-10)


def test_roi_cells_sample_large_boxes_densely() -> None:
    """On a grid of 9 by 16, a bin of the full frame is wider than a cell and takes several samples."""
    feature_map = torch.randn(2, 3, 9, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0, 0, 1000, 1000], [31, 502, 977, 610]])
    expected = np.stack([slow_roi_align(m.numpy(), b) for m, b in zip(feature_map, boxes.tolist(), strict=True)])
    np.testing.assert_allclose(roi_cells(feature_map, boxes).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("boxes", [BOXES, ONE_ABSENT])
def test_gradient_by_tokens(boxes: torch.Tensor) -> None:
    adapter, tokens = adapter_of().requires_grad_(False), tokens_of().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: adapter(t, boxes, (H, W)), (tokens,))


def test_gradient_by_every_parameter() -> None:
    adapter, tokens = adapter_of(), tokens_of()
    names = [name for name, _ in adapter.named_parameters()]
    values = tuple(p.detach().clone().requires_grad_() for p in adapter.parameters())

    def output(*parameters: torch.Tensor) -> torch.Tensor:
        return functional_call(adapter, dict(zip(names, parameters, strict=True)), (tokens, ONE_ABSENT, (H, W)))

    assert torch.autograd.gradcheck(output, values, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_frame_whose_box_is_absent_is_left_bit_for_bit(dtype: torch.dtype) -> None:
    adapter, tokens = adapter_of(dtype), tokens_of(dtype)
    out = adapter(tokens, ONE_ABSENT, (H, W))
    assert out.dtype == dtype and bool(out.isfinite().all())
    assert torch.equal(out[1], tokens[1])
    assert not torch.equal(out[0], tokens[0])


def test_a_zeroed_output_of_both_branches_adds_nothing() -> None:
    adapter, tokens = adapter_of(torch.float32), tokens_of(torch.float32)
    for parameter in (*adapter.attention_out.parameters(), *adapter.ffn_out.parameters()):
        torch.nn.init.zeros_(parameter)
    assert torch.equal(adapter(tokens, BOXES, (H, W)), tokens)


def test_what_was_given_is_not_changed() -> None:
    adapter, tokens, boxes = adapter_of(), tokens_of(), BOXES.clone()
    before = tokens.clone()
    adapter(tokens, boxes, (H, W))
    assert torch.equal(tokens, before) and torch.equal(boxes, BOXES)


def test_frames_do_not_see_each_other() -> None:
    adapter, tokens = adapter_of(), tokens_of()
    alone = [adapter(tokens[f : f + 1], BOXES[f : f + 1], (H, W)) for f in range(F)]
    torch.testing.assert_close(adapter(tokens, BOXES, (H, W)), torch.cat(alone), rtol=0, atol=1e-12)


def test_norm_runs_over_channels() -> None:
    """Scaling one patch leaves what the norm makes of it, and of every other patch, as it was."""
    norm, tokens = adapter_of().attention_norm, tokens_of()
    scaled = tokens.clone()
    scaled[:, 4] *= 1000
    torch.testing.assert_close(norm(scaled), norm(tokens), rtol=1e-4, atol=1e-4)


def test_bfloat16_stays_close_to_float32() -> None:
    wide = adapter_of(torch.float32)(tokens_of(torch.float32), BOXES, (H, W))
    narrow = adapter_of(torch.bfloat16)(tokens_of(torch.bfloat16), BOXES, (H, W))
    assert float((narrow.float() - wide).norm() / wide.norm()) < 0.02


@pytest.mark.parametrize(
    ("boxes", "grid"),
    [(BOXES[:1], (H, W)), (BOXES[:, :3], (H, W)), (BOXES, (H, W + 1)), (torch.cat([BOXES, BOXES]), (H, W))],
)
def test_tokens_boxes_and_grid_must_agree(boxes: torch.Tensor, grid: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="box a frame|grid"):
        adapter_of()(tokens_of(), boxes, grid)


def test_present_is_what_has_an_area() -> None:
    boxes = torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4], [5, 5, 5, 9], [5, 9, 8, 9], [9, 9, 1, 1]])
    assert boxes_present(boxes).tolist() == [False, True, False, False, False]
