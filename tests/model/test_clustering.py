"""One member a cluster: the nearest to each centre, in order, at every run the same."""

from __future__ import annotations

import pytest
import torch

from internvl_chat.model.controls.clustering import representatives


def test_each_cluster_gives_the_member_nearest_its_centre() -> None:
    """Three tight clusters of 3, 2 and 3; in each of three the middle one is nearest to the mean."""
    features = torch.tensor(
        [[0.0, 0, 0.1], [9, 9, 9], [0, 0, 0.5], [-7, 5, 0], [-7, 5, 0.5], [9, 9, 9.4], [0, 0, 0.8], [9, 9, 9.9]]
    )
    chosen = representatives(features, 3, iterations=9)
    assert chosen.tolist() == [2, 3, 5]


def test_the_choice_depends_on_nothing_but_the_features() -> None:
    features = torch.randn(11, 6, generator=torch.Generator().manual_seed(5))
    first = representatives(features, 4)
    torch.rand(3)
    assert representatives(features.clone(), 4).tolist() == first.tolist()
    assert sorted(set(first.tolist())) == first.tolist() and len(first) <= 4


@pytest.mark.parametrize("count", [1, 3, 4])
def test_no_more_members_than_clusters_all_come_back(count: int) -> None:
    assert representatives(torch.randn(count, 5), 4).tolist() == list(range(count))


def test_equal_members_give_one() -> None:
    assert len(representatives(torch.ones(7, 3), 4)) == 1


def test_no_clusters_is_an_error() -> None:
    with pytest.raises(ValueError, match="num_clusters is 0"):
        representatives(torch.ones(3, 2), 0)
