"""Objects tracked in a thread of their own, so that a page can show how far it is and stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from internvl_chat.trackers.following import WAYS, FollowedObjects, GivenObject, Way, follow, num_steps
from internvl_chat.trackers.frames import Footage
from internvl_chat.trackers.lists import TrackerSettings
from internvl_chat.web.film import film_numbers, write_film
from internvl_chat.web.pointing import PointedObject

_SHOWN_EVERY_S = 0.2
_T = TypeVar("_T")


class Stopped(Exception):
    """The user stopped a pass; nothing of it is kept."""


@dataclass(frozen=True)
class Progress:
    """How far a pass is: so many steps of so many."""

    done: int
    total: int


def tracked(
    footage: Footage,
    objects: Sequence[GivenObject],
    settings: TrackerSettings,
    stop: threading.Event,
    ways: Collection[Way] = WAYS,
) -> Generator[Progress, None, FollowedObjects]:
    """`follow`, with how far it is a few times a second.

    Raises:
        Stopped: `stop` was set, or the generator closed.
        UserError: as `follow`.
    """

    def run(on_frame: Callable[[], object]) -> FollowedObjects:
        return follow(footage, objects, settings.make, settings.min_confidence, on_frame, ways)

    return (yield from _in_steps(run, num_steps(footage, objects, ways), stop))


def filmed(
    path: Path, footage: Footage, objects: Sequence[PointedObject], stop: threading.Event
) -> Generator[Progress, None, None]:
    """`write_film`, with how far it is a few times a second.

    Raises:
        Stopped: as `tracked`.
    """

    def run(on_frame: Callable[[], object]) -> None:
        write_film(path, footage, objects, on_frame)

    yield from _in_steps(run, len(film_numbers(footage.num_frames)), stop)


def _in_steps(
    run: Callable[[Callable[[], object]], _T], total: int, stop: threading.Event
) -> Generator[Progress, None, _T]:
    done = 0

    def on_frame() -> None:
        nonlocal done
        done += 1
        if stop.is_set():
            raise Stopped

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(run, on_frame)
        try:
            while not job.done():
                wait([job], timeout=_SHOWN_EVERY_S)
                yield Progress(done, total)
        finally:
            # Whoever leaves before the end does not want what comes of it, and the pool waits for its thread.
            if not job.done():
                stop.set()
        return job.result()
