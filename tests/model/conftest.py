"""A tiny base on disk and what is asked of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import tiny_base


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native InternVL saved as its own `save_pretrained` does; read only."""
    folder = tmp_path_factory.mktemp("base")
    tiny_base().save_pretrained(folder)
    return folder
