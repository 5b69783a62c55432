"""Captions on a Ray cluster: Ray says who works, and nothing that is finished passes through it.

An actor holds a model and is handed a batch at a time. It writes its captions to a file of its own in the run's folder,
which all nodes must see, and returns a row that says what became of them. An actor that dies, or whose node does, has
lost the batch in its hands; another one is handed it.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from internvl_chat.contracts import UserError
from internvl_chat.inference.ledger import ProgressFile, read_progress
from internvl_chat.inference.predict import (
    BatchLimits,
    Work,
    WriteCandidates,
    name_failures,
    progress_bar,
    written,
)
from internvl_chat.inference.ranks import ALONE
from internvl_chat.inference.requests import Ask, Unreadable, Viewpoint, decoded_ahead

# A batch that so many actors died with is given up: it is the batch that kills them.
MOST_DEATHS = 3

Batch = list[tuple[Ask, ...]]
# Gives, on the actor's node, how a clip is shown and what loads its captioner.
OpenThere = Callable[[], tuple[Viewpoint, Callable[[], WriteCandidates]]]


@dataclass(frozen=True)
class StatusRow:
    """What became of a batch: captions written, why others were not, and what ended it before its end."""

    num_written: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    error: str | None = None


class CaptionActor:
    """One model on one node. Everything that a user can be told of comes back as a row.

    Args:
        number: its own among the actors of a run; its file is called by it.
    """

    def __init__(self, open_there: OpenThere, limits: BatchLimits, folder: Path, number: int) -> None:
        self.open_there, self.limits, self.folder, self.number = open_there, limits, folder, number

    def load(self) -> StatusRow:
        """Read the model's weights."""
        try:
            self.view, load = self.open_there()
            self.write_candidates = load()
        except UserError as error:
            return StatusRow(error=str(error))
        return StatusRow()

    def caption(self, batch: Batch, todo: dict[str, str]) -> StatusRow:
        """Write the candidates of the asks in `todo` (key by id)."""
        failures: dict[str, str] = {}
        num_written = 0
        decoded = decoded_ahead([batch], [self.view], self.limits.workers, self.limits.video_timeout_s)
        try:
            with ProgressFile(self.folder, self.number) as file:
                for finished in written(decoded, self.write_candidates, todo, file):
                    if isinstance(finished, Unreadable):
                        failures |= dict.fromkeys(finished.ids, finished.reason)
                    else:
                        num_written += len(finished)
        except UserError as error:
            return StatusRow(num_written, failures, str(error))
        return StatusRow(num_written, failures)


def check_ray() -> Any:
    """Ray, started or joined: a cluster by RAY_ADDRESS, else this machine.

    Raises:
        UserError: it is not installed, or cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(f"--engine ray: install requirements/ray.txt ({error})") from error
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"--engine ray: no cluster can be reached ({' '.join(str(error).split())})") from error
    return ray


class _Crew:
    """The actors, and the batch that each has in its hands."""

    def __init__(self, ray: Any, hire: Callable[[int], Any], num_actors: int) -> None:
        self.ray, self._hire, self._numbers = ray, hire, itertools.count()
        # By what will be its answer: the actor, and its batch; None while it loads its model.
        self.busy: dict[Any, tuple[Any, Batch | None]] = {}
        for _ in range(num_actors):
            self.hire()

    def hire(self) -> None:
        actor = self._hire(next(self._numbers))
        self.busy[actor.load.remote()] = (actor, None)

    def give(self, actor: Any, batch: Batch, todo: dict[str, str]) -> None:
        self.busy[actor.caption.remote(batch, todo)] = (actor, batch)

    def next_row(self) -> tuple[Any, Batch | None, StatusRow | None]:
        """Who is ready next, with what was in its hands and its row; None in place of a row: it died."""
        (answer,), _ = self.ray.wait(list(self.busy), num_returns=1)
        actor, batch = self.busy.pop(answer)
        try:
            return actor, batch, self.ray.get(answer)
        except self.ray.exceptions.RayActorError:
            return actor, batch, None

    @property
    def has_work(self) -> bool:
        return any(batch is not None for _, batch in self.busy.values())


def caption_on_ray(
    work: Work, open_there: OpenThere, limits: BatchLimits, folder: Path, num_actors: int | None
) -> None:
    """Have the batches that are left captioned; `work.done` and `work.failures` are brought up to date.

    Args:
        num_actors: None is one a GPU of the cluster, or one a node where there are none.
    Raises:
        UserError: Ray cannot be used, or an actor could not load its model or write its captions.
    """
    if not work.left:
        return
    ray = check_ray()
    gpus = int(ray.cluster_resources().get("GPU", 0))
    nodes = sum(node["Alive"] for node in ray.nodes())
    remote = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, scheduling_strategy="SPREAD")(CaptionActor)
    crew = _Crew(ray, lambda number: remote.remote(open_there, limits, folder, number), num_actors or gpus or nodes)
    waiting = deque(work.left)
    todo = work.todo(waiting)
    deaths: Counter[int] = Counter()
    idle: list[Any] = []
    with progress_bar(sum(key in work.done for key in work.key_of.values()), len(todo), ALONE) as bar:
        while waiting or crew.has_work:
            while waiting and idle:
                batch = waiting.popleft()
                crew.give(idle.pop(), batch, {ask.id: todo[ask.id] for clip in batch for ask in clip if ask.id in todo})
            actor, held, row = crew.next_row()
            if row is None:
                deaths[id(held)] += 1
                _take_back(held, deaths[id(held)], waiting, work)
                crew.hire()
            elif row.error is not None:
                raise UserError(row.error)
            else:
                idle.append(actor)
                name_failures(row.failures)
                work.failures.update(row.failures)
                bar.update(row.num_written)
    work.done.update(read_progress(folder))


def _take_back(held: Batch | None, num_deaths: int, waiting: deque[Batch], work: Work) -> None:
    """Put a dead actor's batch in front of the others, or give it up.

    Raises:
        UserError: the actor held none, and it is not the first that died while it loaded its model.
    """
    if held is None:
        if num_deaths >= MOST_DEATHS:
            raise UserError(
                f"--engine ray: {num_deaths} actors died while they loaded the model; Ray's logs say of what"
            )
        return
    if num_deaths < MOST_DEATHS:
        tqdm.write("an actor died: another is handed its batch", file=sys.stderr)
        waiting.appendleft(held)
        return
    lost = {ask.id: f"{num_deaths} actors died with it in their hands" for clip in held for ask in clip}
    name_failures(lost)
    work.failures.update(lost)
