"""MiniCPM-V's resampler: learned queries read a picture of any grid into the same number of embeddings.

Shape letters: B pictures, P patches of the longest of them, Q queries, C the tower's width, D the language model's.
Source: MiniCPM-V 2.5, arXiv 2408.01800, section 3; the perceiver resampler of Qwen-VL with positions for any grid.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as nnf

HEAD_WIDTH = 128
_EPS = 1e-6
_LONGEST_WAVE = 10_000.0


class Resampler(nn.Module):
    """Cross-attention of learned queries to patches, whose keys know where they are and whose values do not.

    Args:
        num_queries: embeddings of a picture.
        in_width, width: C and D; D is a multiple of 128, the width of a head.
    """

    def __init__(self, num_queries: int, in_width: int, width: int) -> None:
        super().__init__()
        if width % HEAD_WIDTH:
            raise ValueError(f"width {width}: expected a multiple of {HEAD_WIDTH}")
        self.query = nn.Parameter(torch.empty(num_queries, width))
        self.kv_proj = nn.Linear(in_width, width, bias=False)
        self.kv_norm = nn.LayerNorm(width, eps=_EPS)
        self.query_norm = nn.LayerNorm(width, eps=_EPS)
        # Layers, and not torch's module of attention: ZeRO-3 gathers the weights of layers that are called.
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.post_norm = nn.LayerNorm(width, eps=_EPS)
        self.proj = nn.Parameter(torch.empty(width, width))

    def forward(self, patches_BPC: torch.Tensor, grids_B2: torch.Tensor) -> torch.Tensor:
        """Read pictures.

        Args:
            patches_BPC: row by row, each picture's padded to the longest.
            grids_B2: rows and columns of each picture's patches.
        Returns:
            [B, Q, D].
        """
        values_BPD = self.kv_norm(self.kv_proj(patches_BPC))
        positions_BPD = self._positions(grids_B2, patches_BPC.shape[1]).to(values_BPD)
        queries_BQD = self.query_norm(self.query).expand(len(patches_BPC), -1, -1)
        places = torch.arange(patches_BPC.shape[1], device=patches_BPC.device)
        is_patch = (places < grids_B2.prod(1)[:, None])[:, None, None]
        queries, keys, values = (
            projection(given).unflatten(2, (-1, HEAD_WIDTH)).transpose(1, 2)
            for projection, given in (
                (self.q_proj, queries_BQD),
                (self.k_proj, values_BPD + positions_BPD),
                (self.v_proj, values_BPD),
            )
        )
        read = nnf.scaled_dot_product_attention(queries, keys, values, attn_mask=is_patch)
        return self.post_norm(self.out_proj(read.transpose(1, 2).flatten(2))) @ self.proj

    def _positions(self, grids_B2: torch.Tensor, num_places: int) -> torch.Tensor:
        """[B, P, D] in fp32: waves of the column in the first half, of the row in the second; anything behind a
        picture's patches."""
        places = torch.arange(num_places, device=grids_B2.device)
        columns = grids_B2[:, 1:]
        width = self.proj.shape[-1] // 2
        return torch.cat([waves(places % columns, width), waves(places // columns, width)], dim=-1)


def waves(positions: torch.Tensor, width: int) -> torch.Tensor:
    """Sines, then cosines, of positions at `width` / 2 frequencies: [..., width] in fp32."""
    steps = torch.arange(width // 2, device=positions.device, dtype=torch.float64) / (width / 2)
    angles = positions[..., None].double() * _LONGEST_WAVE**-steps
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()
