"""What the page does when something is pressed, drawn or chosen: from a session to what is shown, by component name."""

from __future__ import annotations

import html
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from internvl_chat.api import Captioner
from internvl_chat.contracts import UserError
from internvl_chat.data.records.names import check_name
from internvl_chat.trackers.following import WAYS, Way
from internvl_chat.trackers.lists import TrackerSettings
from internvl_chat.web.asking import following_of, with_captions
from internvl_chat.web.film import boxes_to_draw, drawn_boxes, drawn_scale, frame_with_boxes, picture_of
from internvl_chat.web.markup import comparison, confidence_plot, objects_table
from internvl_chat.web.pointing import NEW, DrawnBox, PointedClip, pass_of, to_track, with_followed
from internvl_chat.web.record_lines import write_files
from internvl_chat.web.sessions import mark_of
from internvl_chat.web.tracking import Progress, Stopped, filmed, tracked
from internvl_chat.web.workbench import Work, Workbench

NUM_CANDIDATES = 4
# The drawing component rounds to whole pixels of its picture, and its scaling adds as much.
_TOLERANCE_PX = 1.5

_HIDDEN = gr.update(value=None, visible=False)

# Component name -> its value or update; a component that is not named is left as it is.
Shown = dict[str, Any]


@contextmanager
def told() -> Iterator[None]:
    """What a user can act on is told on the page; a file's name in it is text."""
    try:
        yield
    except UserError as error:
        raise gr.Error(html.escape(str(error)), print_exception=False) from error


class Handlers:
    """The page's actions, one method each; `session` names the files that they work on."""

    def __init__(self, captioner: Captioner, tracker: TrackerSettings, bench: Workbench) -> None:
        self.captioner, self.tracker, self.bench = captioner, tracker, bench
        self._stops: dict[str, threading.Event] = {}

    # What is shown

    def _clips(self, session: str, open_clip: str | None) -> Shown:
        with self.bench.sessions.opened(session) as folder:
            return {"clip": gr.update(choices=self.bench.shelf.names_for(folder.uploads), value=open_clip)}

    def _frame(self, work: Work) -> Shown:
        pointed, picture = work.pointed, work.picture()
        shown: Shown = {
            "annotator": gr.update(visible=not pointed.by_clicks),
            "clicked": gr.update(visible=pointed.by_clicks),
            "by_clicks": pointed.by_clicks,
            "corner": None,
            "frame": gr.update(value=pointed.frame, maximum=max(1, pointed.num_frames - 1)),
            "plot": confidence_plot(pointed),
        }
        if pointed.by_clicks:
            shown["clicked"]["value"] = np.asarray(frame_with_boxes(picture, pointed.objects, pointed.frame))
        else:
            image = work.folder.keep_picture(_picture_name(pointed), picture_of(picture))
            shown["annotator"]["value"] = {"image": str(image), "boxes": boxes_to_draw(pointed)}
        return shown

    def _objects(self, pointed: PointedClip) -> Shown:
        labels = [(one.label, one.number) for one in pointed.objects]
        chosen = pointed.object_of(pointed.chosen)
        one = chosen or (pointed.objects[0] if len(pointed.objects) == 1 else None)
        others = [(label, number) for label, number in labels if one is None or number != one.number]
        return {
            "chosen": gr.update(choices=[("new object", NEW), *labels], value=chosen.number if chosen else NEW),
            "name": chosen.name if chosen else pointed.next_name,
            "named": chosen.number if chosen else NEW,
            "objects": objects_table(pointed),
            "caption": gr.update(value=one.caption if one else "", interactive=one is not None),
            "captioned": one.number if one else NEW,
            "other": gr.update(choices=others, value=others[0][1] if others else None),
        }

    def _all(self, work: Work) -> Shown:
        return self._frame(work) | self._objects(work.pointed)

    def _opened(self, session: str) -> Shown:
        with self.bench.at_work(session) as work:
            blank = {"film": None, "comparison": "", "sheets": _HIDDEN, "files": _HIDDEN, "progress": ""}
            film = work.folder.files / _film_name(work.pointed)
            if film.is_file():
                blank["film"] = str(film)
            return self._clips(session, work.pointed.clip) | self._all(work) | blank

    # Sessions and clips

    def open_page(self, known: str) -> Shown:
        """Go on where this browser was, or begin."""
        session = self.bench.sessions.begin(known)
        with self.bench.sessions.opened(session) as folder:
            clip = folder.open_clip()
        names = self.bench.shelf.names
        clip = clip or (names[0] if names else None)
        if clip is None:
            return {"session": session} | self._clips(session, None)
        try:
            self.bench.open_clip(session, clip)
        except UserError as error:
            return {"session": session, "progress": html.escape(str(error))} | self._clips(session, None)
        return {"session": session} | self._opened(session)

    def start_over(self, _session: str) -> Shown:
        """A new session; what the old one has stays until its room is needed."""
        return self.open_page("")

    def choose_clip(self, session: str, clip: str) -> Shown:
        with told():
            self.bench.open_clip(session, clip)
            return self._opened(session)

    def upload(self, session: str, file: str) -> Shown:
        with told():
            self.bench.upload(session, Path(file))
            return self._opened(session)

    def open_record(self, session: str, file: str, line: float) -> Shown:
        with told():
            self.bench.open_record(session, Path(file), int(line))
            return self._opened(session)

    # Pointing

    def go_to(self, session: str, frame: float) -> Shown:
        with told(), self.bench.at_work(session) as work:
            work.keep(work.pointed.at(int(frame)))
            return self._frame(work)

    def step(self, session: str, by: int) -> Shown:
        with told(), self.bench.at_work(session) as work:
            work.keep(work.pointed.at(work.pointed.frame + by))
            return self._frame(work)

    def draw(self, session: str, value: dict[str, Any] | None) -> Shown:
        """Boxes were drawn, moved or taken away, on the picture that comes with them.

        While they are on their way, another frame may be shown, or another clip, whose boxes they are not.
        """
        clip, _, frame = Path(value["image"] or "").stem.rpartition("-") if value else ("", "", "")
        with told(), self.bench.at_work(session) as work:
            if value is None or clip != mark_of(work.pointed.clip):
                return {}
            pointed = work.pointed.at(int(frame))
            drawn = drawn_boxes(pointed, value["boxes"])
            changed = pointed.with_drawn(drawn, _TOLERANCE_PX / drawn_scale(pointed.size_px))
            if changed is pointed:
                return {}
            work.keep(changed)
            return self._all(work)

    def click(self, session: str, corner: list[float] | None, event: gr.SelectData) -> Shown:
        """One corner of a box, then the opposite one."""
        x, y = (float(v) for v in event.index)
        if corner is None:
            return {"corner": [x, y], "progress": "One corner is set: click the opposite one."}
        with told(), self.bench.at_work(session) as work:
            scale = drawn_scale(work.pointed.size_px)
            (left, right), (top, bottom) = (sorted(pair) for pair in ((corner[0], x), (corner[1], y)))
            box_px = (left / scale, top / scale, (right - left) / scale, (bottom - top) / scale)
            present = drawn_boxes(work.pointed, boxes_to_draw(work.pointed))
            work.keep(work.pointed.with_drawn([DrawnBox(None, box_px), *present], _TOLERANCE_PX))
            return self._all(work) | {"progress": ""}

    def choose_object(self, session: str, number: int) -> Shown:
        with told(), self.bench.at_work(session) as work:
            work.keep(replace(work.pointed, chosen=number))
            return self._objects(work.pointed)

    def set_by_clicks(self, session: str, by_clicks: bool) -> Shown:
        with told(), self.bench.at_work(session) as work:
            work.keep(replace(work.pointed, by_clicks=by_clicks))
            return self._frame(work)

    def rename(self, session: str, name: str, number: float) -> Shown:
        """The name of the object of this number, or of the next one; a caption was asked under the name it had."""
        with told(), self.bench.at_work(session) as work:
            name = check_name(name, "the name of an object")
            one = work.pointed.object_of(int(number))
            if name == (one.name if one else work.pointed.next_name):
                return {}
            if one is None:
                work.keep(replace(work.pointed, next_name=name))
            else:
                renamed = replace(one, name=name, is_caption_current=not one.caption)
                work.keep(work.pointed.with_object(renamed))
            return self._all(work)

    def absent(self, session: str) -> Shown:
        """The chosen object is not to be seen from the shown frame on."""
        with told(), self.bench.at_work(session) as work:
            one = work.pointed.chosen_object()
            work.keep(work.pointed.with_object(one.absent_from(work.pointed.frame)))
            return self._all(work)

    def remove(self, session: str) -> Shown:
        with told(), self.bench.at_work(session) as work:
            work.keep(work.pointed.without_object(work.pointed.chosen_object().number))
            return self._all(work)

    # Tracking

    def track(self, session: str, way: Way | None) -> Generator[Shown, None, None]:
        """Track what is to be tracked, or from the shown frame one way; then show the tracks over the video."""
        with told():
            if session in self._stops:
                raise UserError("objects are being tracked: wait, or stop it first")
            stop = self._stops[session] = threading.Event()
            try:
                yield {"progress": "Tracking..."}
                yield from self._track(session, way, stop)
            except Stopped:
                yield {"progress": "Stopped."}
            finally:
                del self._stops[session]

    def _track(self, session: str, way: Way | None, stop: threading.Event) -> Generator[Shown, None, None]:
        with self.bench.at_work(session) as work:
            start, footage, folder = work.pointed, work.footage, work.folder
        objects = to_track(start, way)
        passes = [pass_of(one, start.frame, way) for one in objects]
        steps = tracked(footage, [given for given, _ in passes], self.tracker, stop, [way] if way else WAYS)
        followed = yield from _told_steps("Tracking", steps)
        with self.bench.at_work(session) as work:
            spans = [span for _, span in passes]
            work.keep(with_followed(work.pointed, start, objects, followed, spans))
            tracks, shown = work.pointed.objects, self._all(work)
        film = folder.files / _film_name(start)
        # It shows the tracks from before; who stops the drawing of the new one has none.
        film.unlink(missing_ok=True)
        yield shown | {"film": None}
        self.bench.sessions.make_room(session, 0)
        yield from _told_steps("Drawing the tracks", filmed(film, footage, tracks, stop))
        yield {"progress": "", "film": str(film)}

    def stop(self, session: str) -> Shown:
        if session in self._stops:
            self._stops[session].set()
        return {}

    # The model

    def caption_all(self, session: str) -> Shown:
        """Caption every object in one pass."""
        return self._captioned(session, only_chosen=False)

    def candidates(self, session: str) -> Shown:
        """Several captions of the chosen object, the best first."""
        return self._captioned(session, only_chosen=True, num_beams=NUM_CANDIDATES, num_candidates=NUM_CANDIDATES)

    def _captioned(self, session: str, only_chosen: bool, **decoding: Any) -> Shown:
        with told():
            with self.bench.at_work(session) as work:
                start, path = work.pointed, work.footage.path
            objects = [start.chosen_object()] if only_chosen else list(start.objects)
            captioned = with_captions(self.captioner, path, start, objects, **decoding)
            with self.bench.at_work(session) as work:
                pointed = work.pointed
                for one in objects:
                    now, said = pointed.object_of(one.number), captioned.object_of(one.number)
                    if now is not None and said is not None:
                        pointed = pointed.with_object(
                            replace(now.with_captions(said.candidates), is_caption_current=now.given == one.given)
                        )
                work.keep(pointed)
                return self._objects(work.pointed)

    def write_caption(self, session: str, text: str, number: float) -> Shown:
        """The user's own words about the object of this number, or one of the candidates."""
        with told(), self.bench.at_work(session) as work:
            one = work.pointed.object_of(int(number))
            if one is None or one.caption == text.strip():
                return {}
            work.keep(work.pointed.with_object(replace(one, caption=text.strip(), is_caption_current=True)))
            return {"objects": objects_table(work.pointed)}

    def follow_the_box(self, session: str, other: int | None) -> Shown:
        """The chosen object's caption with its own box, without one, and with another object's."""
        with told():
            with self.bench.at_work(session) as work:
                pointed, path = work.pointed, work.footage.path
            theirs = None if other is None else pointed.object_of(other)
            one = pointed.chosen_object()
            following = following_of(self.captioner, path, one, theirs)
            instead = [("no box", following.without)]
            if following.other is not None and theirs is not None:
                instead.append((f"box of {theirs.label}", following.other))
            shown = [(f"box of {one.label}", following.own), *instead]
            sheets = [(self.captioner.draw(caption), box) for box, caption in shown]
            texts = [(box, caption.text) for box, caption in instead]
            return {
                "comparison": comparison(following.own.text, texts),
                "sheets": gr.update(value=sheets, visible=True),
            }

    def save(self, session: str) -> Shown:
        """Files of the chosen object to download."""
        with told(), self.bench.at_work(session) as work:
            one = work.pointed.chosen_object()
            self.bench.sessions.make_room(session, 0)
            folder = work.folder.files / f"object-{one.number}"
            written = [str(path) for path in write_files(folder, work.pointed, one)]
            return {"files": gr.update(value=written, visible=True)}


def _told_steps(doing: str, steps: Generator[Progress, None, Any]) -> Generator[Shown, None, Any]:
    """How far a pass is, in words; its result."""
    while True:
        try:
            at = next(steps)
        except StopIteration as end:
            return end.value
        yield {"progress": f"{doing}: {at.done} of {at.total} frames"}


def _film_name(pointed: PointedClip) -> str:
    return f"{mark_of(pointed.clip)}.tracks.mp4"


def _picture_name(pointed: PointedClip) -> str:
    """Of the picture that is shown: the drawing component hands it back with the boxes that lie on it."""
    return f"{mark_of(pointed.clip)}-{pointed.frame}.png"
