"""Region tokens: each box of a picture becomes one token of the language model, made of several levels of the tower.

Shape letters: P pictures, R regions, L levels, C the tower's channels, H and W its patch grid, N = H * W patches, D the
language model's width, S the RoI's side in cells; T tiles of all samples together, O objects of each at most.
Source: Artemis (NeurIPS 2024), whose region encoder is GPT4RoI's (arXiv 2307.03601, section 3.2). Computed here in
fp32 or bf16; torchvision's RoIAlign stands for mmcv's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as nnf
from torchvision.ops import roi_align
from transformers.modeling_layers import GradientCheckpointingLayer

from internvl_chat.constants import BOX_SCALE
from internvl_chat.model.controls.box_adapter import FanInConv2d, FanInLinear, ZeroInitLinear, boxes_present
from internvl_chat.model.controls.clustering import representatives

# What a tile is for an object's track; a tile can be both.
TRACK_ROLE, KEY_ROLE = 1, 2
_SAMPLES_PER_CELL = 2
_POSITION_WIDTH = 256


def coordinate_channels(grid_HW: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
    """Two channels [1, 2, H, W] in `like`'s dtype: x, then y, from -1 in the first cell to 1 in the last."""
    height, width = grid_HW
    x = torch.linspace(-1, 1, width, device=like.device).expand(height, width)
    y = torch.linspace(-1, 1, height, device=like.device)[:, None].expand(height, width)
    return torch.stack([x, y])[None].to(like.dtype)


def resized(maps: torch.Tensor, grid_HW: tuple[int, int]) -> torch.Tensor:
    """Maps [P, C, H, W] on another grid, bilinear, corner on corner."""
    if tuple(maps.shape[-2:]) == grid_HW:
        return maps
    return nnf.interpolate(maps, size=grid_HW, mode="bilinear", align_corners=True)


def numbers_kept(pictures: int, patches: int, scales: Sequence[int], channels: int, num_fusions: int) -> int:
    """Numbers that an encoder keeps for its backward pass: of each exchange its input, convolution and norm.

    What it keeps of the regions themselves is little beside these maps.
    """
    return 3 * num_fusions * pictures * patches * channels * sum(scale**2 for scale in scales)


class FusionRound(nn.Module):
    """One exchange between neighbouring levels, with the same weights at every level.

    A level keeps the first half of its channels, takes the last quarter of the next coarser one's and the third quarter
    of the next finer one's, resized to its own grid; the outermost take from themselves. Then 3x3 convolution,
    GroupNorm, ReLU.
    """

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.conv = FanInConv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm = nn.GroupNorm(num_groups, channels)

    def forward(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Levels [P, C, H_l, W_l], finest first, exchanged."""
        channels = levels[0].shape[1]
        half, quarter = channels // 2, channels // 4
        last = len(levels) - 1
        exchanged = []
        for number, level in enumerate(levels):
            grid_HW = (level.shape[-2], level.shape[-1])
            coarser, finer = levels[min(number + 1, last)], levels[max(number - 1, 0)]
            from_coarser = resized(coarser[:, half + quarter :], grid_HW)
            from_finer = resized(finer[:, half : half + quarter], grid_HW)
            mixed = torch.cat([level[:, :half], from_coarser, from_finer], dim=1)
            exchanged.append(nnf.relu(self.norm(self.conv(mixed))))
        return exchanged


class RegionEncoder(GradientCheckpointingLayer):
    """One token a region: levels of the tower, fused, seen through RoIAlign, with the box's place added.

    Args:
        channels: C, a multiple of `num_groups`.
        out_width: D.
        scales: of each level's grid in patch grids, finest first; as many as there are levels.
        hidden_width: of a region before it is brought to D.
        roi_cells: S.
        num_fusions: exchanges between the levels.
        num_groups: of the fusions' GroupNorm.
        sees_motion: it is told how far a box is from its track's key box, too.
        starts_at_zero: its tokens are zero until something is learned; for tokens that are added to others.
    """

    def __init__(
        self,
        channels: int,
        out_width: int,
        scales: Sequence[int] = (8, 4, 2, 1),
        hidden_width: int = 1024,
        roi_cells: int = 14,
        num_fusions: int = 5,
        num_groups: int = 64,
        sees_motion: bool = False,
        starts_at_zero: bool = False,
    ) -> None:
        if channels % num_groups:
            raise ValueError(f"{channels} channels: expected a multiple of {num_groups}, the norm's groups")
        super().__init__()
        self.scales, self.roi_cells = tuple(scales), roi_cells
        self.level_convs = nn.ModuleList(FanInConv2d(channels + 2, channels, kernel_size=1) for _ in scales)
        self.fusions = nn.ModuleList(FusionRound(channels, num_groups) for _ in range(num_fusions))
        self.roi_convs = nn.ModuleList(FanInConv2d(channels, channels, kernel_size=3, padding=1) for _ in scales)
        self.roi_proj = FanInLinear(channels * roi_cells**2, hidden_width)
        self.position = nn.Sequential(
            FanInLinear(8 if sees_motion else 4, _POSITION_WIDTH),
            nn.ReLU(),
            nn.LayerNorm(_POSITION_WIDTH),
            FanInLinear(_POSITION_WIDTH, hidden_width),
            nn.ReLU(),
            nn.LayerNorm(hidden_width),
        )
        self.out = (ZeroInitLinear if starts_at_zero else FanInLinear)(hidden_width, out_width)

    def forward(
        self,
        levels_PNC: Sequence[torch.Tensor],
        boxes_R4: torch.Tensor,
        picture_R: torch.Tensor,
        grid_HW: tuple[int, int],
        motion_R4: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens of the regions.

        Args:
            levels_PNC: patch tokens without the class token, [P, N, C] each, from the layer nearest the pixels on.
            boxes_R4: x1 y1 x2 y2 in shares of the picture's sides, 0 to 1; one without area is absent, and its token
                knows nothing of the picture.
            picture_R: [R] int64, the picture that each box lies in.
            grid_HW: the patch grid.
            motion_R4: each box less its track's key box, of an encoder that sees motion.
        Returns:
            [R, D], in the weights' dtype.
        Raises:
            ValueError: the levels, boxes or grid do not fit each other.
        """
        if len(levels_PNC) != len(self.scales):
            raise ValueError(f"expected {len(self.scales)} levels, got {len(levels_PNC)}")
        if boxes_R4.shape != (len(picture_R), 4):
            raise ValueError(f"expected a box a region, [{len(picture_R)}, 4], got {list(boxes_R4.shape)}")
        if levels_PNC[0].shape[1] != grid_HW[0] * grid_HW[1]:
            raise ValueError(f"{levels_PNC[0].shape[1]} patches do not fill a grid of {grid_HW[0]} x {grid_HW[1]}")
        dtype = self.out.weight.dtype
        maps = self._fused([level.to(dtype) for level in levels_PNC], grid_HW)
        by_level = zip(self.roi_convs, maps, strict=True)
        seen = sum(conv(self._regions(level, boxes_R4, picture_R)) for conv, level in by_level)
        seen_RF = nnf.relu(seen.flatten(1)) * boxes_present(boxes_R4)[:, None]
        places = boxes_R4 if motion_R4 is None else torch.cat([boxes_R4, motion_R4], dim=1)
        return self.out(self.roi_proj(seen_RF) + self.position(places.to(dtype)))

    def _fused(self, levels_PNC: Sequence[torch.Tensor], grid_HW: tuple[int, int]) -> list[torch.Tensor]:
        """Each level's map on its own grid, [P, C, scale * H, scale * W], after all exchanges."""
        coordinates = coordinate_channels(grid_HW, levels_PNC[0]).expand(len(levels_PNC[0]), -1, -1, -1)
        maps = []
        for conv, tokens, scale in zip(self.level_convs, levels_PNC, self.scales, strict=True):
            placed = torch.cat([tokens.transpose(1, 2).unflatten(2, grid_HW), coordinates], dim=1)
            # The 1x1 convolution and the resizing change places: both are linear, the coordinates are linear in the
            # place, and the small map costs scale * scale times less.
            maps.append(resized(conv(placed), (scale * grid_HW[0], scale * grid_HW[1])))
        for fusion in self.fusions:
            maps = fusion(maps)
        return maps

    def _regions(self, maps_PCHW: torch.Tensor, boxes_R4: torch.Tensor, picture_R: torch.Tensor) -> torch.Tensor:
        """RoIAlign of each box in at least fp32, [R, C, S, S] in the maps' dtype."""
        height, width = maps_PCHW.shape[-2:]
        wide = maps_PCHW.to(torch.promote_types(maps_PCHW.dtype, torch.float32))
        cells = boxes_R4.to(wide.dtype) * wide.new_tensor([width, height, width, height])
        rois = torch.cat([picture_R[:, None].to(wide.dtype), cells], dim=1)
        pooled = roi_align(wide, rois, self.roi_cells, sampling_ratio=_SAMPLES_PER_CELL, aligned=True)
        return pooled.to(maps_PCHW.dtype)


@dataclass(frozen=True)
class Track:
    """One object's regions among all: the row of its key picture, those of its track in time order, and its slots."""

    key: int
    others: tuple[int, ...]
    num_slots: int


@dataclass(frozen=True, eq=False)
class Regions:
    """Which boxes of which tiles become tokens, and which slots they fill.

    Args:
        tile_R: [R] int64, ascending.
        boxes_R4: in shares of the tile's sides.
        tracks: samples in order, objects in the order of their slots.
    """

    tile_R: torch.Tensor
    boxes_R4: torch.Tensor
    tracks: tuple[Track, ...]

    @staticmethod
    def nowhere(device: torch.device | None = None) -> Regions:
        """One absent box in the first tile, of no object: what runs the layers where there is nothing to see."""
        return Regions(torch.zeros(1, dtype=torch.long, device=device), torch.zeros(1, 4, device=device), ())

    @staticmethod
    def of(boxes_TO4: torch.Tensor, roles_TO: torch.Tensor, slots_TO: torch.Tensor) -> Regions:
        """Read off what the control's data half gives for each tile.

        Args:
            boxes_TO4: in thousandths of the tile.
            roles_TO: `TRACK_ROLE` where the tile is offered for the object's track, `KEY_ROLE` where it is its key,
                their sum where it is both, 0 elsewhere.
            slots_TO: at a sample's first tile each object's slots, -1 at its other tiles.
        """
        tile_R, object_R = (roles_TO > 0).nonzero(as_tuple=True)
        boxes_R4 = boxes_TO4[tile_R, object_R].float() / BOX_SCALE
        roles = roles_TO[tile_R, object_R].tolist()
        sample_T = (slots_TO[:, 0] >= 0).cumsum(0) - 1
        owners = list(zip(sample_T[tile_R].tolist(), object_R.tolist(), strict=True))
        tracks = []
        for sample, slots in enumerate(slots_TO[slots_TO[:, 0] >= 0].tolist()):
            for number, num_slots in enumerate(slots):
                own = [row for row, owner in enumerate(owners) if owner == (sample, number)]
                if num_slots:
                    key = next(row for row in own if roles[row] & KEY_ROLE)
                    others = tuple(row for row in own if roles[row] & TRACK_ROLE)
                    tracks.append(Track(key, others, num_slots))
        return Regions(tile_R, boxes_R4, tuple(tracks))

    def motion(self) -> torch.Tensor:
        """Each box less its track's key box, [R, 4] in shares of the tile's sides."""
        motion = torch.zeros_like(self.boxes_R4)
        for track in self.tracks:
            rows = [track.key, *track.others]
            motion[rows] = self.boxes_R4[rows] - self.boxes_R4[track.key]
        return motion

    def fill(self, tokens_RD: torch.Tensor) -> torch.Tensor:
        """The tokens in the order of the slots, [slots of all objects, D].

        The first slot is the key's. Where a track has more tiles than slots are left, its tokens are clustered and the
        one nearest each centre is taken; where it has fewer, the last is repeated.
        """
        rows = [row for track in self.tracks for row in _chosen_rows(track, tokens_RD)]
        return tokens_RD[torch.tensor(rows, dtype=torch.long, device=tokens_RD.device)]


def _chosen_rows(track: Track, tokens_RD: torch.Tensor) -> list[int]:
    others = list(track.others) or [track.key]
    left = track.num_slots - 1
    if left and len(others) > left:
        others = [others[member] for member in representatives(tokens_RD[others], left).tolist()]
    padded = others + others[-1:] * (left - len(others))
    return [track.key, *padded[:left]]


def fill_slots(inputs_embeds: torch.Tensor, slots: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Embeddings [B, L, D] with region tokens [N, D] at the slots [B, L], in order.

    Raises:
        ValueError: there are not as many slots as tokens.
    """
    if int(slots.sum()) != len(tokens):
        raise ValueError(f"{int(slots.sum())} region slots in the text for {len(tokens)} region tokens")
    return inputs_embeds.masked_scatter(slots[..., None], tokens.to(inputs_embeds.dtype))
