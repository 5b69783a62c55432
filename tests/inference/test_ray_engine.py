"""Captions on a Ray cluster of two nodes, of which one is killed: nothing is missing, and nothing is otherwise."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from internvl_chat.__main__ import main
from internvl_chat.inference.video_captions.run_videos import PROGRESS_NAME
from tests.data.clips import write_clip

pytestmark = pytest.mark.process
ray: Any = pytest.importorskip("ray", reason="requirements/ray.txt is not installed")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one processor each on this machine; the second may be removed."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.second = made.add_node(num_cpus=1)
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def finished(out: Path, actor: int) -> int:
    path = out / PROGRESS_NAME / f"rank-{actor:05d}.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def test_a_killed_node_costs_what_it_had_in_hand(cluster: Any, captioner_folder: Path, tmp_path: Path) -> None:
    clips, calm, out = (tmp_path / name for name in ("clips", "calm", "out"))
    clips.mkdir()
    for number in range(12):
        write_clip(clips / f"{number:02d}.mp4", 5 + number)
    (clips / "broken.mp4").write_bytes(b"no video")
    settings = "--num_workers 0 --max_new_tokens 60 --batch_tokens 1 --strategy uniform3".split()
    command = ["caption-videos", str(clips), "--model", str(captioner_folder), *settings, "--out"]
    assert main([*command, str(calm)]) == 1

    seen: list[tuple[int, int]] = []

    def kill_the_second() -> None:
        while not (finished(out, 0) and finished(out, 1)):
            time.sleep(0.01)
        cluster.remove_node(cluster.second, allow_graceful=False)
        seen.append((finished(out, 0), finished(out, 1)))

    killer = threading.Thread(target=kill_the_second, daemon=True)
    killer.start()
    assert main([*command, str(out), "--engine", "ray", "--actors", "2"]) == 1
    killer.join(timeout=60)
    ((first, second),) = seen
    assert 2 <= first + second < 12, "the node was killed when all was done"
    assert (out / "captions.jsonl").read_bytes() == (calm / "captions.jsonl").read_bytes()
    failures = [json.loads(line)["video"] for line in (out / "failures.jsonl").read_text().splitlines()]
    assert failures == ["broken.mp4"]
    # What was finished was not written again, but for the batch in the dead actor's hands.
    assert sum(finished(out, actor) for actor in range(3)) <= 13
