"""Two ranks, killed in the middle: the miniature of benchmarks/kills/prediction.py."""

from __future__ import annotations

from pathlib import Path

import pytest

import eval_const
from benchmarks.kills.prediction import FINAL_FILES, finished_captions, kill_after, start
from internvl_chat.data.records.annotations import DatasetEntry

pytestmark = pytest.mark.process


def test_two_killed_ranks_end_with_the_files_of_one_undisturbed(
    captioner_folder: Path, own_entry: DatasetEntry, tmp_path: Path
) -> None:
    (own_entry.root / "references_test.json").unlink()
    meta = own_entry.annotation.with_name("meta.json")
    flags = ["--checkpoint_path", captioner_folder, "--meta_path", meta]
    flags += "--num_frames 3 --num_beams 3 --temperature 1 --num_candidates 5 --max_new_tokens 90".split()
    flags += "--batch_tokens 1 --num_workers 0".split()
    calm, killed, log = tmp_path / "calm", tmp_path / "killed", tmp_path / "log.txt"
    assert eval_const.run(eval_const.build_parser().parse_args([str(f) for f in [*flags, "--save_path", calm]])) == 0

    assert kill_after(start([*flags, "--save_path", killed], log), killed, captions=1, delay_s=0.0), log.read_text()
    done = finished_captions(killed)
    assert 1 <= done < 6 and not (killed / "result.zip").exists()
    assert start([*flags, "--save_path", killed], log).wait() == 0, log.read_text()
    # Ranks share what is left, so that no caption was written twice.
    assert finished_captions(killed) == 6
    assert {name: (killed / name).read_bytes() == (calm / name).read_bytes() for name in FINAL_FILES} == dict.fromkeys(
        FINAL_FILES, True
    )
