"""What a run asks of its output folder before it loads a weight: that nobody else writes there, and that it fits.

A run that goes on must have the data that it began with, and is told of another batch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from internvl_chat.contracts import Sample, UserError
from internvl_chat.files import read_json
from internvl_chat.processes import forget, lock

logger = logging.getLogger(__name__)

# Of a trained parameter in a checkpoint beside the weight itself: a master copy and AdamW's two moments, 4 bytes each.
_STATE_BYTES = 12
_BATCH_SETTINGS = ("per_device_train_batch_size", "gradient_accumulation_steps")
# What says which passes make a step.
_ORDER_SETTINGS = ("seed", "data_seed", "group_by_length", "max_packed_tokens")
# Where data lie and how they are read, which no sample shows; packing is told with the batch.
_FED_SETTINGS = ("meta_path", "max_packed_tokens", "frame_cache", "frame_cache_gb", "video_backend", "max_bad_fraction")
_START_ANEW = "or start anew: --overwrite_output_dir True, or another --output_dir"


@contextmanager
def held(output_dir: Path) -> Iterator[None]:
    """Keep the folder to this run for as long as it is inside; the system lets go when the process ends.

    Raises:
        UserError: another run of this machine holds it, or it cannot be made.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        folder = os.open(output_dir, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UserError(f"--output_dir {output_dir}: cannot be used ({error.strerror})") from error
    try:
        try:
            lock(folder)
        except BlockingIOError as error:
            raise UserError(
                f"--output_dir {output_dir}: another run is writing there: wait for its end, or give another folder"
            ) from error
        yield
    finally:
        forget(folder)
        os.close(folder)


def warn_of_another_batch(run_record: Path, batch_size: int, settings_now: Mapping[str, Any]) -> None:
    """Tell where a run that goes on puts other passes, or more or fewer of them, into a step than before.

    Args:
        batch_size: passes of an optimizer step, of all processes.
        settings_now: flags of this run by name.
    """
    before = _record(run_record)
    settings = before.get("training", {})
    order_now = {flag: settings_now[flag] for flag in _ORDER_SETTINGS}
    means = "the epoch goes on in another order, in which some passes come again and others are left out"
    # The trainer writes down a setting that is None as a text.
    _tell_changes(run_record.parent, {**before.get("data", {}), **settings}, order_now, str, means)
    sizes = [before.get("world_size"), *(settings.get(key) for key in _BATCH_SETTINGS)]
    if all(isinstance(size, int) for size in sizes) and math.prod(sizes) != batch_size:
        logger.warning("%s: a step was of %d passes, from here on %d", run_record.parent, math.prod(sizes), batch_size)


def warn_of_another_prompt(run_record: Path, settings_now: Mapping[str, Any]) -> None:
    """Tell where a run that goes on asks, shows or weighs otherwise than before: a checkpoint has one way alone.

    Args:
        settings_now: of the data and of prompts, by name.
    """
    told_now = {flag: now for flag, now in settings_now.items() if flag not in _FED_SETTINGS}
    means = "what was trained until now was asked or shown otherwise"
    _tell_changes(run_record.parent, _record(run_record).get("data", {}), told_now, json.dumps, means)


def _tell_changes(
    folder: Path, said: Mapping[str, Any], now: Mapping[str, Any], written: Callable[[Any], str], means: str
) -> None:
    """Warn of each setting that is another one than was said, where one was; `written` is how both are compared."""
    for flag, value in now.items():
        if flag in said and written(said[flag]) != written(value):
            logger.warning("%s: --%s was %s and is %s from here on: %s", folder, flag, said[flag], value, means)


def data_facts(samples: Sequence[Sample], passes: int) -> dict[str, int | str]:
    """What `run.json` says of a run's data: how much, and a mark of what is asked, answered and shown, in its order.

    The data may lie elsewhere when the run goes on.
    """
    mark = hashlib.sha256()
    for sample in samples:
        shown = [path.name for path in (*sample.image_paths, *filter(None, [sample.video_path]))]
        said = [[turn.speaker, turn.text] for turn in sample.turns]
        mark.update(json.dumps([sample.id, shown, sample.clip_s, said]).encode())
    return {"samples": len(samples), "passes": passes, "data_mark": mark.hexdigest()[:16]}


def check_same_data(run_record: Path, facts: Mapping[str, int | str]) -> None:
    """See to it that a run goes on with the data it began with.

    Args:
        facts: of this run's data.
    Raises:
        UserError: there are more or fewer records or prompts than then, or others.
    """
    then = {**facts, **{key: value for key, value in _record(run_record).items() if key in facts}}
    if then == facts:
        return
    counts = "{samples} records in {passes} passes".format
    now = "other records" if counts(**then) == counts(**facts) else counts(**facts)
    raise UserError(
        f"{run_record.parent}: was trained on {counts(**then)}, this run has {now}: give the same data to go on, "
        f"{_START_ANEW}"
    )


def check_free_disk(output_dir: Path, parameters_trained: int, bytes_a_parameter: int) -> None:
    """See to it that one checkpoint fits on the disk.

    Raises:
        UserError: it does not.
    """
    needed, free = parameters_trained * (bytes_a_parameter + _STATE_BYTES), shutil.disk_usage(output_dir).free
    if needed > free:
        raise UserError(
            f"--output_dir {output_dir}: a checkpoint takes about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: "
            "make room, or give another folder"
        )


def _record(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
