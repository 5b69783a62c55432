"""What the page shows where there is neither checkpoint nor video: the repository's tiny model, and clips for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from internvl_chat.contracts import UserError
from internvl_chat.data.synthetic.shapes import sample_clip, write_video
from internvl_chat.files import replacing_folder
from internvl_chat.steps import REPOSITORY

NUM_CLIPS, SEED = 8, 21
NOTE = (
    "The model of this page is the repository's own tiny one. It was trained for minutes on clips of moving shapes, "
    "knows nothing else, and knows objects by the name “object”: it shows the way, not what a model of size would say."
)


def demo_clips(folder: Path) -> Path:
    """Make a few clips of moving shapes in a folder, where it does not hold them yet; the folder."""
    if not folder.is_dir():
        rng = np.random.default_rng(SEED)
        with replacing_folder(folder) as temporary:
            for number in range(NUM_CLIPS):
                write_video(temporary / f"shapes-{number + 1}.mp4", sample_clip(rng, same_category=number % 2 == 0))
    return folder


def demo_model() -> tuple[Path, str]:
    """The checkpoint that `quickstart/demo_model.py` trained, and its base.

    Raises:
        UserError: this is no checkout of the repository.
    """
    checkpoint = REPOSITORY / "quickstart" / "demo"
    if not checkpoint.is_dir():
        raise UserError(f"--demo: its model {checkpoint} comes with the repository: run it in a checkout")
    return checkpoint, str(REPOSITORY / "quickstart" / "base")
