"""Samples that are left out are counted, named once, and too many stop the run."""

from __future__ import annotations

import logging

import pytest

from internvl_chat.contracts import Sample, UserError
from internvl_chat.train.fault_log import FaultLog


def sample(number: int) -> Sample:
    return Sample(f"dog-{number}", (), f"a.jsonl:{number}")


def test_each_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    faults = FaultLog(num_samples=2000)
    with caplog.at_level(logging.WARNING):
        for error in (UserError("a.jsonl:3: sample 'dog-3': bad box"), UserError("again")):
            faults.skip(sample(3), error)
        faults.skip(sample(5), "/data/dog.mp4: cannot be decoded")
    assert [record.getMessage() for record in caplog.records] == [
        "skipped a.jsonl:3: sample 'dog-3': bad box",
        "skipped a.jsonl:5: sample 'dog-5': /data/dog.mp4: cannot be decoded",
    ]
    assert faults.summary() == "2 of 2000 samples cannot be used"


def test_more_than_the_share_stops_with_the_list() -> None:
    faults = FaultLog(num_samples=2000)
    for number in (1, 2, 2, 1):
        faults.skip(sample(number), "broken")
    with pytest.raises(UserError, match=r"^3 of 2000 samples .*--max_bad_fraction 0.001.*check META.json") as caught:
        faults.skip(sample(3), "cut off")
    assert str(caught.value).splitlines()[1:] == [
        "  a.jsonl:1: sample 'dog-1': broken",
        "  a.jsonl:2: sample 'dog-2': broken",
        "  a.jsonl:3: sample 'dog-3': cut off",
    ]


@pytest.mark.parametrize(("fraction", "allowed"), [(0.0, 0), (0.5, 5), (1.0, 10)])
def test_the_share_is_of_the_whole_set(fraction: float, allowed: int) -> None:
    faults = FaultLog(10, fraction)
    for number in range(allowed):
        faults.skip(sample(number), "broken")
    if allowed < 10:
        with pytest.raises(UserError):
            faults.skip(sample(99), "broken")


def test_one_pass_may_break_however_small_the_share() -> None:
    faults = FaultLog(30, 0.001, largest_pass=5)
    for number in range(5):
        faults.skip(sample(number), "broken")
    with pytest.raises(UserError, match="^6 of 30"):
        faults.skip(sample(99), "broken")
    with pytest.raises(UserError, match="^1 of 30"):
        FaultLog(30, 0, largest_pass=5).skip(sample(1), "broken")


def test_a_long_list_is_cut() -> None:
    faults = FaultLog(1000, 0.1)
    with pytest.raises(UserError, match=r"and 51 more$"):
        for number in range(101):
            faults.skip(sample(number), "broken")


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_an_impossible_share_names_its_flag(fraction: float) -> None:
    with pytest.raises(UserError, match="--max_bad_fraction"):
        FaultLog(10, fraction)
