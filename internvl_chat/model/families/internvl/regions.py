"""InternVL's region tokens: the mean of the visual tokens inside a box, and what a region encoder adds to it.

Shape letters: F tiles, N visual tokens of a tile, C the ViT's channels, D the language model's width, R regions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torchvision.ops import roi_align

from internvl_chat.model.controls.box_adapter import boxes_present
from internvl_chat.model.controls.region_tokens import RegionEncoder, Regions, fill_slots
from internvl_chat.model.families.internvl.configuration import IntentVCNetConfig

# Three levels of the ViT, spread over its depth, on grids of four, two and one times the patches.
SCALES = (4, 2, 1)
NUM_FUSIONS = 2
_SAMPLES_PER_BOX = 4


class VisualRegions(RegionEncoder):
    """Region tokens that begin as what the language model already reads: the visual tokens inside the box, averaged.

    Artemis' encoder starts from nothing, with 45,000 questions to learn from; here it starts by adding nothing, and is
    told how far a box is from its track's key box.
    """

    def __init__(self, config: IntentVCNetConfig) -> None:
        channels, depth = config.vision_config.hidden_size, config.vision_config.num_hidden_layers
        super().__init__(
            channels,
            config.text_config.hidden_size,
            scales=SCALES,
            hidden_width=channels,
            roi_cells=7,
            num_fusions=NUM_FUSIONS,
            num_groups=math.gcd(channels, 64),
            sees_motion=True,
            starts_at_zero=True,
        )
        step = max(1, depth // len(SCALES))
        self.layers = tuple(-1 - step * level for level in reversed(range(len(SCALES))))

    def place(
        self,
        inputs_embeds: torch.Tensor,
        slots: torch.Tensor,
        tower: nn.Module,
        vision: Mapping[str, torch.Tensor],
        features_FND: torch.Tensor,
    ) -> torch.Tensor:
        """Embeddings [B, L, D] with the tokens of the regions at the slots [B, L].

        Levels are read from the plain tower, without box adapters, and only of the tiles that regions lie in. In
        training a row without regions runs the same layers, so that every rank has gradients of the same weights.

        Args:
            vision: `pixel_values` [F, 3, S, S], and for each tile what `Regions.of` says, where there are regions.
            features_FND: the visual tokens of all tiles.
        Raises:
            ValueError: there are not as many slots as region tokens.
        """
        pixel_values = vision["pixel_values"]
        regions = Regions.nowhere(pixel_values.device)
        if "region_roles" in vision:
            given = Regions.of(vision["region_boxes"], vision["region_roles"], vision["region_slots"])
            regions = given if given.tracks else regions
        if not regions.tracks and not self.training:
            return fill_slots(inputs_embeds, slots, features_FND.new_zeros(0, features_FND.shape[-1]))
        used, picture_R = regions.tile_R.unique(return_inverse=True)
        states = tower(pixel_values[used], output_hidden_states=True).hidden_states
        levels = [states[layer][:, 1:] for layer in self.layers]
        side = math.isqrt(levels[0].shape[1])
        added = self(levels, regions.boxes_R4, picture_R, (side, side), regions.motion())
        tokens = mean_inside(features_FND[used], regions.boxes_R4, picture_R) + added
        filled = fill_slots(inputs_embeds, slots, regions.fill(tokens))
        return filled if regions.tracks else filled + 0 * tokens.sum().to(filled.dtype)


def mean_inside(tokens_FND: torch.Tensor, boxes_R4: torch.Tensor, picture_R: torch.Tensor) -> torch.Tensor:
    """The mean of the square grid of tokens inside each box, [R, D] in the tokens' dtype, zero where the box is absent.

    Args:
        tokens_FND: N a square number, row by row.
        boxes_R4: in shares of the tile's sides.
        picture_R: [R] int64, the tile of each box.
    """
    side = math.isqrt(tokens_FND.shape[1])
    maps = tokens_FND.transpose(1, 2).unflatten(2, (side, side))
    wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
    rois = torch.cat([picture_R[:, None].to(wide.dtype), boxes_R4.to(wide.dtype) * side], dim=1)
    means = roi_align(wide, rois, output_size=1, sampling_ratio=_SAMPLES_PER_BOX, aligned=True)[:, :, 0, 0]
    return (means * boxes_present(boxes_R4)[:, None]).to(tokens_FND.dtype)
