"""Two real ranks over gloo that see different files: one message and an end, never a hang."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate import PartialState

from internvl_chat.contracts import UserError
from internvl_chat.model.checkpoint import COMPLETION_MARK_NAME, file_sizes, is_complete, list_files
from internvl_chat.train.agreement import agreed_checkpoint, found_by_ranks
from tests.train.conftest import free_port

LONGEST_S = 60.0


def complete_checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"12345")
    list_files(folder, [file_sizes(folder)])
    (folder / COMPLETION_MARK_NAME).write_text("{}")
    return folder


def as_rank(rank: int, port: int, work: Callable[[int], object], folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    PartialState._reset_state()
    PartialState(cpu=True)
    with (folder / f"said-{rank}").open("w") as said:
        sys.stderr = said
        said.write(f"{work(rank)}\n")


def two_ranks(folder: Path, work: Callable[[int], object]) -> tuple[list[int | None], list[str]]:
    """What two ranks end with, and what they say on the way."""
    context, port = multiprocessing.get_context("fork"), free_port()
    ranks = [context.Process(target=as_rank, args=(rank, port, work, folder)) for rank in range(2)]
    for one in ranks:
        one.start()
    for one in ranks:
        one.join(LONGEST_S)
        one.kill()
    return [one.exitcode for one in ranks], [(folder / f"said-{rank}").read_text() for rank in range(2)]


def test_a_checkpoint_that_one_node_does_not_see_ends_all_ranks_with_one_message(tmp_path: Path) -> None:
    """The second rank's folder is another one, where the same path leads to nothing."""
    whole = complete_checkpoint(tmp_path / "0" / "checkpoint-2")

    def go_on(rank: int) -> Path | None:
        os.chdir(tmp_path / str(rank))
        return agreed_checkpoint(lambda: Path("checkpoint-2") if rank == 0 else pytest.fail("rank 0 decides"))

    (tmp_path / "1").mkdir()
    codes, said = two_ranks(tmp_path, go_on)
    assert codes == [1, 1] and said[1] == ""
    assert "error: checkpoint-2: rank 0 goes on from this checkpoint" in said[0] and "(said by rank 1)" in said[0]

    (tmp_path / "1").rmdir()
    (tmp_path / "1").symlink_to(whole.parent, target_is_directory=True)
    assert two_ranks(tmp_path, go_on) == ([0, 0], ["checkpoint-2\n"] * 2)


def test_what_one_rank_cannot_do_none_does(tmp_path: Path) -> None:
    def layers(rank: int) -> int:
        if rank == 1 and (tmp_path / "too small").exists():
            raise UserError("the run does not fit")
        return 14 + rank

    assert two_ranks(tmp_path, lambda rank: max(found_by_ranks(lambda: layers(rank)))) == ([0, 0], ["15\n"] * 2)
    (tmp_path / "too small").touch()
    codes, said = two_ranks(tmp_path, lambda rank: found_by_ranks(lambda: layers(rank)))
    assert (codes, said) == ([1, 1], ["error: the run does not fit (said by rank 1)\n", ""])


def test_a_single_process_raises_what_it_finds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--output_dir must be a folder that all nodes share"):
        agreed_checkpoint(lambda: tmp_path / "checkpoint-7")


def test_a_file_that_only_another_rank_has_written_makes_a_checkpoint_incomplete_until_it_is_there(
    tmp_path: Path,
) -> None:
    folder = complete_checkpoint(tmp_path / "checkpoint-4")
    own = file_sizes(folder)
    listed = list_files(folder, [own, {"weights": 3, "global_step4/shard_1": 7}])
    assert listed == {**own, "global_step4/shard_1": 7} and not is_complete(folder)
    (folder / "global_step4").mkdir()
    (folder / "global_step4" / "shard_1").write_bytes(b"123456")
    assert not is_complete(folder), "as long as it was written"
    (folder / "global_step4" / "shard_1").write_bytes(b"1234567")
    assert is_complete(folder)
