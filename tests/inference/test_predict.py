"""Nothing finished is lost or done twice, and what cannot be done is named: with captions that cost nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.prompts.encoder import SampleEncoder, SamplePlan
from internvl_chat.data.prompts.wordings import wording_named
from internvl_chat.data.records.annotations import DatasetEntry
from internvl_chat.data.records.record_questions import question_sample
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.ledger import ProgressFile, read_progress
from internvl_chat.inference.predict import BatchLimits, Predictions, fail_unless_any, predict
from internvl_chat.inference.ranks import Ranks
from internvl_chat.inference.requests import (
    Ask,
    EncodedClip,
    PlannedAsk,
    Viewpoint,
    plan_ask,
    plan_batches,
    with_tracks,
)

DECODING = Decoding(max_new_tokens=5)


@pytest.fixture(scope="module")
def views(encoder: SampleEncoder) -> list[Viewpoint]:
    return [Viewpoint(encoder, 3)]


@pytest.fixture
def asks(own_entry: DatasetEntry) -> list[Ask]:
    """Twelve ids, the first asked once more with another track."""
    ids = sorted(path.name for path in own_entry.root.glob("*/*"))
    made = [Ask(i, (question_sample(own_entry, i, wording_named("coordinates").asks),)) for i in ids]
    other = with_tracks(made[0].samples[0], made[1].samples[0].tracks)
    return [*made, Ask("again", (other,))]


@dataclass
class Writer:
    """Writes a caption that tells its prompt from others; notes the ids of each call, and fails on demand."""

    room: int = 1000
    killed_after: int = 1000
    calls: list[list[str]] = field(default_factory=list)

    def __call__(self, clips: Sequence[EncodedClip]) -> list[list[str]]:
        ids = [i for clip in clips for i in clip.ids]
        if len(ids) > self.room:
            raise torch.OutOfMemoryError
        if len(self.calls) == self.killed_after:
            raise KeyboardInterrupt
        self.calls.append(ids)
        prompts = [prompt for clip in clips for prompt in clip.views[0].prompts]
        return [[f"seen {sum(prompt.input_ids)} {prompt.tensors['boxes'].sum()}"] for prompt in prompts]


def run(
    writer: Writer, asks: Sequence[Ask], views: list[Viewpoint], folder: Path, tokens: int = 1800, **changes: object
) -> Predictions:
    settings = {"decoding": DECODING, "identity": "model", **changes}
    return predict(asks, views, lambda: writer, folder=folder, limits=BatchLimits(tokens, 0), **settings)


def test_captions_come_in_the_order_of_the_asks(asks: list[Ask], views: list[Viewpoint], tmp_path: Path) -> None:
    writer = Writer()
    predictions = run(writer, asks, views, tmp_path / "p")
    assert list(predictions.captions) == [ask.id for ask in asks]
    # The last ask shows the first one's clip with the second one's track: what the second one shows.
    assert len(set(predictions.captions.values())) == len(asks) - 1
    assert 2 < len(writer.calls) < len(asks)
    together = next(call for call in writer.calls if "again" in call)
    assert asks[0].id in together


def test_a_killed_run_goes_on_where_it_stopped(asks: list[Ask], views: list[Viewpoint], tmp_path: Path) -> None:
    undisturbed = Writer()
    expected = run(undisturbed, asks, views, tmp_path / "undisturbed")
    for kills in range(len(undisturbed.calls)):
        folder = tmp_path / str(kills)
        with pytest.raises(KeyboardInterrupt):
            run(Writer(killed_after=kills), asks, views, folder)
        assert len(read_progress(folder)) == sum(len(call) for call in undisturbed.calls[:kills])
        writer = Writer()
        assert run(writer, asks, views, folder) == expected
        assert writer.calls == undisturbed.calls[kills:]
        assert run(Writer(killed_after=0), asks, views, folder) == expected


def test_a_torn_line_is_dropped_and_its_batch_done_again(
    asks: list[Ask], views: list[Viewpoint], tmp_path: Path
) -> None:
    whole = Writer()
    expected = run(whole, asks, views, tmp_path)
    path = tmp_path / "rank-00000.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    done = len(whole.calls[0]) + 1
    path.write_bytes(b"".join(lines[:done]) + lines[done][:-9])
    writer = Writer()
    assert run(writer, asks, views, tmp_path) == expected
    assert writer.calls == whole.calls[1:]
    assert path.read_bytes() == b"".join(lines)


def test_other_settings_models_or_boxes_are_other_captions(
    asks: list[Ask], views: list[Viewpoint], tmp_path: Path
) -> None:
    run(Writer(), asks, views, tmp_path)
    changes = [{"identity": "other"}, {"decoding": replace(DECODING, max_new_tokens=4)}]
    for change in changes:
        writer = Writer()
        run(writer, asks, views, tmp_path, **change)
        assert sum(map(len, writer.calls)) == len(asks)
    writer = Writer()
    run(writer, asks, views, tmp_path, tokens=1)
    assert writer.calls == []
    moved = replace(asks[3], samples=(with_tracks(asks[3].samples[0], asks[4].samples[0].tracks),))
    run(writer, [*asks[:3], moved, *asks[4:]], views, tmp_path, tokens=1)
    assert writer.calls == [[moved.id]]


def test_out_of_memory_halves_the_batch_and_the_next_ones(
    asks: list[Ask], views: list[Viewpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run(Writer(), asks, views, tmp_path / "roomy", tokens=10**6)
    writer = Writer(room=4)
    assert run(writer, asks, views, tmp_path / "tight", tokens=10**6) == expected
    # 13 asks do not fit, 6 neither: then 3 at a time.
    assert max(map(len, writer.calls)) == 3
    assert sorted(i for call in writer.calls for i in call) == sorted(ask.id for ask in asks)
    assert "out of memory with 13 captions at a time: going on with 6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "is_memory"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED", False),
    ],
)
def test_a_library_without_room_for_its_workspace_is_out_of_memory(
    words: str, is_memory: bool, asks: list[Ask], views: list[Viewpoint], tmp_path: Path
) -> None:
    def write(_clips: object) -> list[list[str]]:
        raise RuntimeError(words)

    if is_memory:
        failures = run(write, asks[:2], views, tmp_path).failures
        assert list(failures) == [ask.id for ask in asks[:2]]
    else:
        with pytest.raises(RuntimeError, match="EXECUTION_FAILED"):
            run(write, asks[:2], views, tmp_path)


def test_an_ask_that_does_not_fit_alone_is_named(asks: list[Ask], views: list[Viewpoint], tmp_path: Path) -> None:
    predictions = run(Writer(room=0), asks[:3], views, tmp_path)
    assert list(predictions.failures) == [ask.id for ask in asks[:3]]
    with pytest.raises(UserError, match=f"none of 3 .*{asks[0].id}: does not fit in memory"):
        fail_unless_any(predictions)


def test_an_unreadable_video_is_named_and_tried_again(asks: list[Ask], views: list[Viewpoint], tmp_path: Path) -> None:
    path = asks[2].samples[0].video_path
    content = path.read_bytes()
    path.unlink()
    predictions = run(Writer(), asks, views, tmp_path)
    assert list(predictions.failures) == [asks[2].id] and str(path) in predictions.failures[asks[2].id]
    assert list(predictions.candidates) == [ask.id for ask in asks if ask is not asks[2]]
    path.write_bytes(content)
    writer = Writer()
    again = run(writer, asks, views, tmp_path)
    assert not again.failures and list(again.candidates) == [ask.id for ask in asks]


def test_a_video_under_the_same_name_with_other_pixels_is_captioned_anew(
    asks: list[Ask], views: list[Viewpoint], tmp_path: Path
) -> None:
    run(Writer(), asks, views, tmp_path)
    one, other = asks[4].samples[0].video_path, asks[7].samples[0].video_path
    assert one.read_bytes() != other.read_bytes()
    one.write_bytes(other.read_bytes())
    writer = Writer()
    run(writer, asks, views, tmp_path, tokens=1)
    assert writer.calls == [[asks[4].id]]


class ThreadRanks(Ranks):
    """Ranks that are threads of one process: what each gathers, all get."""

    def __init__(self, rank: int, barrier: threading.Barrier, given: list[object]) -> None:
        super().__init__(rank, barrier.parties)
        object.__setattr__(self, "barrier", barrier)
        object.__setattr__(self, "given", given)

    def gathered(self, mine: object) -> list:
        self.given[self.rank] = mine
        self.barrier.wait(timeout=60)
        everyones = list(self.given)
        self.barrier.wait(timeout=60)
        return everyones


# Ranks are threads here: numpy reads the header of an npy with `ast`, which Python 3.11 counts across threads.
ONE_AT_A_TIME = threading.Lock()


class Shortsighted(Viewpoint):
    """Cannot read one video, as a node that lacks the file."""

    def plan(self, sample: Sample) -> SamplePlan:
        if sample.id == self.blind_to:
            raise UserError(f"{sample.video_path}: not found")
        with ONE_AT_A_TIME:
            return super().plan(sample)


@pytest.mark.parametrize("blind", range(13))
def test_ranks_that_disagree_about_a_video_lose_no_other(
    blind: int, asks: list[Ask], views: list[Viewpoint], tmp_path: Path
) -> None:
    barrier, given, told = threading.Barrier(2), [None, None], [None, None]

    def work(rank: int) -> None:
        seen = Shortsighted(SampleEncoder(views[0].encoder.tokenizer, views[0].encoder.config), 3)
        object.__setattr__(seen, "blind_to", asks[blind].samples[0].id if rank else None)
        told[rank] = run(Writer(), asks, [seen], tmp_path, ranks=ThreadRanks(rank, barrier, given))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert told[0] == told[1] and told[0] is not None
    missing = [ask.id for ask in asks if ask.id not in told[0].candidates]
    assert set(missing) <= {ask.id for ask in asks if ask.samples[0].id == asks[blind].samples[0].id}
    assert list(told[0].failures) == missing


def test_without_a_gpu_memory_runs_out_too(asks: list[Ask], views: list[Viewpoint], tmp_path: Path) -> None:
    def tight(clips: Sequence[EncodedClip]) -> list[list[str]]:
        if sum(len(clip.ids) for clip in clips) > 2:
            torch.empty(2**50)
        return [["a thing"] for clip in clips for _ in clip.ids]

    assert len(run(tight, asks, views, tmp_path, tokens=10**6).candidates) == len(asks)
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        run(lambda _clips: torch.ones(2) @ torch.ones(3), asks, views, tmp_path / "other")


def test_another_run_in_the_folder_is_told_of_before_weights_are_read(
    asks: list[Ask], views: list[Viewpoint], tmp_path: Path
) -> None:
    with ProgressFile(tmp_path, 0), pytest.raises(UserError, match="another run"):
        predict(asks, views, pytest.fail, decoding=DECODING, identity="", folder=tmp_path, limits=BatchLimits(1800, 0))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        predict(asks, views, pytest.fail, decoding=DECODING, identity="", folder=tmp_path / "file" / "progress")


def test_two_writers_of_one_file_are_refused(tmp_path: Path) -> None:
    with ProgressFile(tmp_path, 1), pytest.raises(UserError, match="rank-00001.jsonl: another run"):
        ProgressFile(tmp_path, 1)
    with ProgressFile(tmp_path, 1) as file:
        file.append([{"key": "k", "id": "i", "candidates": ["ä\nb"]}])
    assert read_progress(tmp_path) == {"k": ["ä\nb"]}


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "rank-00000.jsonl").write_text(json.dumps({"key": "k", "candidates": []}) + "\n{}\n")
    with pytest.raises(UserError, match="rank-00000.jsonl:2: is no record"):
        read_progress(tmp_path)


@pytest.mark.parametrize("num_parts", [1, 3])
@pytest.mark.parametrize("max_tokens", [1, 700, 1500, 10**6])
def test_batches_hold_every_ask_once_within_the_budget(
    max_tokens: int, num_parts: int, asks: list[Ask], views: list[Viewpoint]
) -> None:
    planned = [item for ask in asks if isinstance(item := plan_ask(ask, views), PlannedAsk)]
    cost = {item.ask.id: item.lengths[0] + 2 * 5 for item in planned}
    batches = plan_batches(planned, rows=2, max_new_tokens=5, max_tokens=max_tokens, num_parts=num_parts)
    ids = [[ask.id for clip in batch for ask in clip] for batch in batches]
    assert sorted(i for batch in ids for i in batch) == sorted(cost)
    for batch in ids:
        assert len(batch) == 1 or len(batch) * max(cost[i] for i in batch) <= max_tokens
    assert len(batches) >= num_parts
    longest = [max(cost[i] for i in batch) for batch in ids]
    assert longest == sorted(longest, reverse=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": -1.0}, "--temperature -1"),
        ({"temperature": float("nan")}, "--temperature nan"),
        ({"temperature": 1e-300}, "--temperature 1e-300: expected 0 .no sampling., or 1e-06 and above"),
        ({"temperature": float("inf")}, "--temperature inf"),
        ({"top_p": 0.0}, "--top_p 0"),
        ({"num_candidates": 3}, "--num_candidates 3 with --num_beams 1"),
        ({"num_beams": 4, "num_candidates": 4, "temperature": 1.0}, "nothing would be sampled"),
    ],
)
def test_settings_that_contradict_each_other_are_told(settings: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Decoding(**settings)


@pytest.mark.parametrize(
    ("settings", "best", "samples"),
    [
        ({}, 1, 0),
        ({"num_beams": 5, "num_candidates": 2}, 2, 0),
        ({"temperature": 1.0, "num_candidates": 8}, 0, 8),
        ({"temperature": 1.0, "num_candidates": 8, "num_beams": 3}, 3, 5),
    ],
)
def test_candidates_are_beams_then_samples(settings: dict[str, float], best: int, samples: int) -> None:
    decoding = Decoding(**settings)
    assert (decoding.num_best, decoding.num_samples) == (best, samples)
