"""A forked process frees nothing that it inherited: what it would wait for is not there."""

from __future__ import annotations

import os
from typing import Any

import pytest

from internvl_chat.workers import worker_pool

pytestmark = pytest.mark.process


class _Inherited:
    """Garbage in a circle, as a decoder that a frame points back to; whoever frees it away from home is told of."""

    def __init__(self, freed_by: Any) -> None:
        self.me, self.home, self.freed_by = self, os.getpid(), freed_by

    def __del__(self) -> None:
        if os.getpid() != self.home:
            with open(self.freed_by, "a") as file:
                file.write("freed\n")


def _collect(_: int) -> int:
    import gc

    return gc.collect() * 0


def test_inherited_garbage_is_left_alone(tmp_path: Any) -> None:
    import gc

    gc.disable()
    try:
        _Inherited(tmp_path / "freed")
        with worker_pool(2) as pool:
            assert list(pool.map(_collect, range(3))) == [0, 0, 0]
    finally:
        gc.enable()
    gc.collect()
    assert not (tmp_path / "freed").exists()
