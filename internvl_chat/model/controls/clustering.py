"""k-means of a handful of features, and the member nearest each centre: the same choice at every run.

Shape letters: M members, K clusters, D features.
"""

from __future__ import annotations

import torch

_STARTS = 8


@torch.no_grad()
def representatives(features_MD: torch.Tensor, num_clusters: int, iterations: int = 3, seed: int = 123) -> torch.Tensor:
    """One member a cluster, in the members' own order.

    The best of eight random starts, computed in fp64: rounding decides between two members as rarely as can be. A
    cluster that has no member gives none, so that fewer than `num_clusters` may come back; with as many clusters as
    members all come back.

    Args:
        features_MD: [M, D].
        iterations: assignments and updates, as in Artemis, which stops long before convergence.
        seed: of the starts.
    Returns:
        Ascending member numbers, at most `num_clusters`, at least one where there are members.
    Raises:
        ValueError: `num_clusters` is less than one.
    """
    if num_clusters < 1:
        raise ValueError(f"num_clusters is {num_clusters}: expected at least 1")
    members = features_MD.double().cpu()
    count = len(members)
    if count <= num_clusters:
        return torch.arange(count, device=features_MD.device)
    generator = torch.Generator().manual_seed(seed)
    candidates = []
    for _ in range(_STARTS):
        centres = members[torch.randperm(count, generator=generator)[:num_clusters]]
        for _ in range(iterations):
            of_member = torch.cdist(members, centres).argmin(1)
            sizes = torch.bincount(of_member, minlength=num_clusters)[:, None]
            sums = torch.zeros_like(centres).index_add_(0, of_member, members)
            centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
        distances = torch.cdist(members, centres)
        candidates.append((distances.amin(1).square().sum().item(), distances))
    _, distances = min(candidates, key=lambda candidate: candidate[0])
    of_member = distances.argmin(1)
    chosen = {int(distances[:, k].masked_fill(of_member != k, torch.inf).argmin()) for k in of_member.tolist()}
    return torch.tensor(sorted(chosen), device=features_MD.device)
