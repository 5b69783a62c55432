"""The caption proof's base and its videos: small enough to ship, named right by the command, and broken ones too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from internvl_chat.__main__ import main
from quickstart.caption_proof import BASE, outcome, write_broken
from quickstart.pretraining.video_base import QUESTIONS, listed
from quickstart.synthetic.shape_videos import caption_of, draw_video, write_videos

pytestmark = pytest.mark.process


def test_the_base_lists_what_moves_and_broken_videos_are_named(tmp_path: Path) -> None:
    assert (BASE / "model.safetensors").stat().st_size < 3 * 2**20
    clips, out = tmp_path / "clips", tmp_path / "out"
    captions = write_videos(clips, range(8), seed=9)
    broken = write_broken(clips)
    drawn = [draw_video(np.random.default_rng([9, number])) for number in range(8)]
    assert list(captions.values()) == [caption_of(clip) for clip in drawn]
    argv = ["caption-videos", clips, "--model", BASE, "--out", out, "--question", QUESTIONS[0], "--num_workers", 0]
    assert main([str(word) for word in (*argv, "--max_new_tokens", 12)]) == 1
    said = [json.loads(line)["caption"] for line in (out / "captions.jsonl").read_text().splitlines()]
    right = sum(text.strip() == listed(clip) for text, clip in zip(said, drawn, strict=True))
    assert right >= 6
    share, line = outcome(out, captions)
    assert share == 0 and line.endswith(f"failures: {', '.join(broken)}\n")
