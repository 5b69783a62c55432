"""Runs one broken file through prepare, check, the converters and the dataset, and judges what happened."""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from internvl_chat.choices import CONVERTERS, PROMPT_FORMS
from internvl_chat.contracts import Sample, TrackFile, UserError
from internvl_chat.data.checking.check import CheckReport, check_meta
from internvl_chat.data.checking.findings import as_json, as_text
from internvl_chat.data.checking.repair import write_repaired
from internvl_chat.data.converters.forms.conversion import Conversion
from internvl_chat.data.converters.forms.tracking import Question
from internvl_chat.data.prompts.encoder import SampleEncoder
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.records.annotations import boxes_path_of, load_meta, read_samples
from internvl_chat.data.records.box_files import write_boxes_beside
from internvl_chat.data.records.reader import RecordReader
from tests.data.converters.sound import SOUND_SOURCES
from tests.fuzzing.seedbed import MUTABLE, fresh_copy, write_seedbed
from tests.helpers import byte_tokenizer

# Seconds of the processor, so that a busy machine is not taken for a hang; and of the clock, for one that waits.
LONGEST_CPU_S, LONGEST_WAIT_S = 5, 60
CLIP = "root/cup/cup-1/cup-1.mp4"
# Files of several converters' forms that Hypothesis draws anew; every converter has a source of its own beside them.
_DRAWN = {"root/chats.json": ("llamafactory", "ms-swift"), "root/coco.json": ("coco",)}
SOURCES = "sources"
# Of a converter's source the texts are broken: what a picture or video holds, other inputs break.
_TEXT_SUFFIXES = frozenset((".json", ".jsonl", ".js", ".txt", ".csv", ".xml", ".label", ".ini", ".h5"))
_QUESTION = Question(PROMPT_FORMS["coordinates"], {})
# Of a fault in no line in particular.
_OF_A_WHOLE_FILE = re.compile(r"is empty|holds no records|cannot be read|not found|is no file|leaves none|has \d+ ")
_WRITING_EVENTS = frozenset("os.mkdir os.rename os.remove os.rmdir os.link os.symlink os.truncate os.chmod".split())


class FuzzFailure(AssertionError):
    """An input was neither read right nor refused with a message that names it."""


class Watch:
    """Sees every file that Python code opens to write, and every name it makes, moves or removes."""

    def __init__(self) -> None:
        self.inside: str | None = None
        self.strays: list[str] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, args: tuple[Any, ...]) -> None:
        if self.inside is None:
            return
        if event == "open":
            path, mode, flags = args
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not writes or not isinstance(path, (str, bytes)):
                return
        elif event not in _WRITING_EVENTS:
            return
        path = os.path.realpath(os.fsdecode(args[0]))
        if not path.startswith(self.inside + os.sep) and path != "/dev/null":
            self.strays.append(f"{event} {path}")


class Garden:
    """A dataset in which one file at a time is replaced by a broken one.

    Args:
        folder: an empty folder of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = fresh_copy(write_seedbed(folder / "seedbed"), folder / "dataset")
        self.meta = self.folder / "meta.json"
        self.sources = {kind: self._write_source(kind) for kind in CONVERTERS}
        texts = (path for path in (self.folder / SOURCES).rglob("*") if path.suffix in _TEXT_SUFFIXES)
        # What mutations may change, relative to the folder.
        self.mutable = (*MUTABLE, *sorted(str(path.relative_to(self.folder)) for path in texts))
        self.tokenizer = byte_tokenizer()
        self.config = PromptConfig.of(
            "internvl2_5", force_image_size=28, tokens_per_frame=3, dynamic_image_size=True, max_dynamic_patch=3
        )
        self.watch = Watch()
        # Tells where it hangs, then lets the signal end the process, whatever code that is in.
        faulthandler.register(signal.SIGPROF, chain=True)
        self.counts = {"read": 0, "refused": 0}
        for _ in self._run("meta.json"):
            raise FuzzFailure("the dataset that mutations start from is refused")
        for kind in CONVERTERS:
            for message in self._convert(kind, self.sources[kind], self.folder / SOURCES / kind):
                raise FuzzFailure(f"the source of {kind} that mutations start from is refused: {message}")

    def _write_source(self, kind: str) -> Path:
        """A sound source of a converter, in a folder of its own; a converter without one fails here."""
        folder = self.folder / SOURCES / kind
        folder.mkdir(parents=True)
        return SOUND_SOURCES[kind](folder)

    def original(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def try_out(self, name: str, content: bytes) -> None:
        """Put `content` in the place of a file, and run everything that reads it.

        Raises:
            FuzzFailure: something else than reading it, or a `UserError` that names it, came of it.
        """
        path = self.folder / name
        sound = path.read_bytes()
        path.write_bytes(content)
        files = _open_files()
        faulthandler.dump_traceback_later(LONGEST_WAIT_S, exit=True)
        signal.setitimer(signal.ITIMER_PROF, LONGEST_CPU_S)
        self.watch.inside, self.watch.strays = str(self.folder.resolve()), []
        try:
            refusals = list(self._run(name))
        except FuzzFailure:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is no UserError is what this looks for
            raise FuzzFailure(f"{name}: {type(error).__name__}: {error}") from error
        finally:
            self.watch.inside = None
            faulthandler.cancel_dump_traceback_later()
            signal.setitimer(signal.ITIMER_PROF, 0)
            path.write_bytes(sound)
            shutil.rmtree(self.folder / "fixed", ignore_errors=True)
        for message in refusals:
            if not self._names(message, path):
                raise FuzzFailure(f"{name}: the message does not say where: {message}")
        if self.watch.strays:
            raise FuzzFailure(f"{name}: wrote outside its folder: {self.watch.strays}")
        if _open_files() > files and gc.collect() >= 0 and _open_files() > files:
            raise FuzzFailure(f"{name}: left {_open_files() - files} files open")
        self.counts["refused" if refusals else "read"] += 1

    def _names(self, message: str, path: Path) -> bool:
        if str(self.folder) not in message:
            # A meta JSON can name another root; its files are then told by their path there.
            return path == self.meta and any(part in message for file in MUTABLE for part in Path(file).parts[1:])
        if path.is_relative_to(self.folder / SOURCES) or path.suffix not in (".jsonl", ".txt"):
            return True
        if str(path) not in message:
            return True
        return bool(re.search(re.escape(str(path)) + r":\d+", message) or _OF_A_WHOLE_FILE.search(message))

    def _run(self, name: str) -> Iterator[str]:
        """Run all readers that the file concerns; yields the message of each refusal."""
        clip = self.folder / CLIP
        if name in (CLIP, str(Path(CLIP).with_name("object_bboxes.txt"))):
            boxes = boxes_path_of(clip)
            before = boxes.read_bytes()
            yield from _refusals([lambda: write_boxes_beside(clip, overwrite=True)])
            boxes.write_bytes(before)
        if name in _DRAWN:
            for kind in _DRAWN[name]:
                yield from self._convert(kind, self.folder / name, self.folder / "root")
            return
        if name.startswith(f"{SOURCES}/"):
            kind = Path(name).parts[1]
            yield from self._convert(kind, self.sources[kind], self.folder / SOURCES / kind)
            return
        report = check_meta(self.meta, workers=1)
        as_text(report, shown=3).encode("utf-8")
        json.dumps(as_json(report))
        if report.entries:
            yield from _refusals([lambda: write_repaired(report, self.folder / "fixed")])
        refusals = list(_refusals(self._readers(name)))
        yield from refusals
        self._compare(name, report, refusals)

    def _convert(self, kind: str, source: Path, root: Path) -> Iterator[str]:
        """Convert as `convert-data` does, and read what comes out as training would."""
        options, reader = Conversion(root, _QUESTION), RecordReader(root)
        module = import_module(f"internvl_chat.data.converters.{kind.replace('-', '_')}")

        def convert() -> None:
            for record in module.records(source, options):
                reader.read(record, f"{source}: record {record['id']!r}")

        yield from _refusals([convert])
        yield from map(str, options.faults)

    def _readers(self, name: str) -> Iterator[Callable[[], Any]]:
        samples: list[Sample] = []

        def read_all() -> None:
            for entry in load_meta(self.meta):
                samples.extend(read_samples(entry))

        yield read_all
        # A new one each time: an encoder remembers the header of the file that it read last.
        encoder = SampleEncoder(self.tokenizer, self.config)
        for sample in samples[:20]:
            if name.startswith("root") and not any(name.startswith(path) for path in self._paths(sample)):
                continue
            yield lambda sample=sample: encoder(sample, encoder.choose_frames(sample, 3, "middle"))

    def _paths(self, sample: Sample) -> list[str]:
        """The files and folders of a sample, relative to the dataset's."""
        videos = [sample.video_path] if sample.video_path else []
        boxes = [track.path for track in sample.tracks if isinstance(track, TrackFile)]
        return [str(path.relative_to(self.folder)) for path in [*sample.image_paths, *videos, *boxes]]

    def _compare(self, name: str, report: CheckReport, refusals: list[str]) -> None:
        """What the check finds no error in, training reads; pictures' and videos' data it does not look into."""
        is_media = name.startswith("root") and "object_bboxes" not in name
        if refusals and not is_media and not report.of_severity("error"):
            raise FuzzFailure(f"{name}: the check finds no error, but it is refused: {refusals[0]}")


def _refusals(attempts: Any) -> Iterator[str]:
    for attempt in attempts:
        try:
            attempt()
        except UserError as error:
            yield str(error)


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
