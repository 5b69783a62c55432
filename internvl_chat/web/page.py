"""The page's layout, and which component does what; what it does is in `handlers`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from inspect import isgeneratorfunction
from pathlib import Path
from typing import Any

import gradio as gr
from gradio_image_annotation import image_annotator

from internvl_chat.constants import VIDEO_SUFFIXES
from internvl_chat.trackers.following import Way
from internvl_chat.web.handlers import NUM_CANDIDATES, Handlers, Shown, told
from internvl_chat.web.pointing import NEW
from internvl_chat.web.tabs import Tabs

_HERE = Path(__file__).parent
# Only what machines have: the themes' own fonts come from another host.
_FONTS, _MONO_FONTS = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
_FAR, _FILM_HEIGHT_PX = 10, 260
_DAY_S, _HOUR_S = 86400, 3600
_HELP = (
    "Draw a box with the left tool, move it with the hand; the bin takes it away. “Track” follows it both ways. "
    "A box that is moved on a tracked frame mends the track: press “On” to track on from there, or “Back”. Keys: `,` "
    "and `.` a frame back and on, with shift ten."
)


def launch_settings() -> dict[str, Any]:
    """What `launch` needs for the page to look and behave as it should, and to ask no other host for anything."""
    return {
        "theme": gr.themes.Default(font=_FONTS, font_mono=_MONO_FONTS),
        "css_paths": _HERE / "page.css",
        "js": (_HERE / "page.js").read_text(encoding="utf-8"),
        "ssr_mode": False,
        "share": False,
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "quiet": True,
    }


def build_page(handlers: Handlers, title: str, note: str = "") -> gr.Blocks:
    """The page over these handlers.

    Args:
        note: a line under the title, in Markdown.
    """
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(_HOUR_S, _DAY_S)) as blocks:
        # The secret only keeps the id from being read at a glance; it must be the same when the server starts again.
        parts: dict[str, Any] = {
            "session": gr.BrowserState("", storage_key="intentvcnet-session", secret="intentvcnet"),
            "corner": gr.State(None),
            # Kept by the tab, as the browser's session is not.
            "place": gr.Textbox("", visible=False),
        }
        gr.Markdown(f"## {title}\n{note}")
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                parts |= _picture()
            with gr.Column(scale=2, min_width=320):
                parts |= _objects() | _tracks() | _captions() | _files()
        parts |= _following()
        _wire(blocks, parts, handlers)
    return blocks


def _picture() -> dict[str, Any]:
    with gr.Row():
        clip = gr.Dropdown([], label="Clip", elem_id="clip", scale=3, min_width=160)
        upload = gr.UploadButton(
            "Upload a video", file_types=sorted(VIDEO_SUFFIXES), elem_id="upload", size="md", min_width=120
        )
    annotator = image_annotator(
        label="Frame",
        elem_id="annotator",
        sources=[],
        image_type="filepath",
        boxes_alpha=0.15,
        box_min_size=4,
        disable_edit_boxes=True,
        show_clear_button=False,
        show_download_button=False,
        show_share_button=False,
    )
    clicked = gr.Image(
        label="Click two opposite corners", elem_id="clicked", visible=False, interactive=False, buttons=[]
    )
    frame = gr.Slider(0, 1, step=1, label="Frame", elem_id="frame", buttons=[])
    with gr.Row(elem_id="steps"):
        steps = {
            by: gr.Button(text, elem_id=name, size="sm", min_width=40)
            for name, text, by in (
                ("far-back", f"−{_FAR}", -_FAR),
                ("back", "−1", -1),
                ("on", "+1", 1),
                ("far-on", f"+{_FAR}", _FAR),
            )
        }
    plot = gr.HTML(elem_id="plot")
    objects = gr.HTML(elem_id="objects")
    by_clicks = gr.Checkbox(label="Set boxes by two clicks", elem_id="by-clicks")
    gr.Markdown(_HELP)
    return {
        **{"clip": clip, "upload": upload, "annotator": annotator, "clicked": clicked, "frame": frame, "steps": steps},
        **{"plot": plot, "objects": objects, "by_clicks": by_clicks},
    }


def _objects() -> dict[str, Any]:
    with gr.Group():
        chosen = gr.Radio([("new object", NEW)], value=NEW, label="The next box is of", elem_id="chosen")
        name = gr.Textbox("object", label="Name (what the prompt calls it)", elem_id="name", max_lines=1)
        with gr.Row():
            absent = gr.Button("Not to be seen from here", elem_id="absent", size="sm")
            remove = gr.Button("Remove object", elem_id="remove", size="sm")
    # Whose name it is: while it is on its way, another object may be chosen already.
    named = gr.Number(NEW, visible=False)
    return {"chosen": chosen, "name": name, "named": named, "absent": absent, "remove": remove}


def _tracks() -> dict[str, Any]:
    with gr.Row():
        track = gr.Button("Track", variant="primary", elem_id="track", size="md", min_width=70)
        back = gr.Button("◀ Back", elem_id="track-back", size="md", min_width=70)
        on = gr.Button("On ▶", elem_id="track-on", size="md", min_width=70)
        stop = gr.Button("Stop", variant="stop", elem_id="stop", size="md", min_width=50)
    progress = gr.Markdown(elem_id="progress")
    film = gr.Video(
        label="Tracks", elem_id="film", autoplay=True, loop=True, interactive=False, buttons=[], height=_FILM_HEIGHT_PX
    )
    return {"track": track, "track_back": back, "track_on": on, "stop": stop, "progress": progress, "film": film}


def _captions() -> dict[str, Any]:
    with gr.Row():
        ask = gr.Button("Caption every object", variant="primary", elem_id="ask", size="md")
        candidates = gr.Button(f"{NUM_CANDIDATES} candidates", elem_id="candidates", size="md")
    caption = gr.Textbox(label="Caption of the chosen object, as its record says it", elem_id="caption", lines=2)
    captioned = gr.Number(NEW, visible=False)
    return {"ask": ask, "candidates": candidates, "caption": caption, "captioned": captioned}


def _following() -> dict[str, Any]:
    with gr.Accordion("Does it follow the box?", elem_id="following"):
        other = gr.Dropdown([], label="Another object's box", elem_id="other")
        follow = gr.Button("Ask with its own box, no box, and the other's", elem_id="follow", size="md")
        compared = gr.HTML(elem_id="compared")
        sheets = gr.Gallery(
            label="What the model saw", elem_id="sheets", columns=1, height="auto", buttons=[], visible=False
        )
    return {"other": other, "follow": follow, "comparison": compared, "sheets": sheets}


def _files() -> dict[str, Any]:
    with gr.Accordion("Save, and open what was saved", elem_id="saving"):
        save = gr.Button("Save track, caption and record", elem_id="save", size="md")
        files = gr.File(
            label="Files of the chosen object",
            elem_id="files",
            file_count="multiple",
            interactive=False,
            visible=False,
        )
        with gr.Row():
            line = gr.Number(1, precision=0, minimum=1, label="Record number", elem_id="line", min_width=100)
            record = gr.UploadButton(
                "Open a record", file_types=[".jsonl", ".json"], elem_id="record", size="md", min_width=120
            )
        fresh = gr.Button("Start over with an empty session", elem_id="fresh", size="sm")
    return {"save": save, "files": files, "line": line, "record": record, "fresh": fresh}


# What handlers fill.
_FILLED = (
    "session place clip annotator clicked by_clicks corner frame plot chosen name named objects caption "
    "captioned other progress film comparison sheets files"
).split()


_QUIET = {"show_progress": "hidden", "api_visibility": "private"}


def _wire(blocks: gr.Blocks, parts: dict[str, Any], handlers: Handlers) -> None:
    outputs, tabs = [parts[name] for name in _FILLED], Tabs()

    def opening(event: Any, handler: Callable[[str], Shown]) -> None:
        def opened(known: str) -> Any:
            shown = handler(known)
            return {parts[name]: value for name, value in shown.items()} | {parts["place"]: tabs.open(shown["session"])}

        event(opened, parts["session"], outputs, **_QUIET)

    def bind(event: Any, handler: Callable[..., Any], *inputs: str, **settings: Any) -> None:
        components = [parts[name] for name in ("place", *inputs)]
        event(_filling(handler, parts, tabs), components, outputs, **{**_QUIET, **settings})

    # The latest of what is drawn or slid counts; a press waits for its turn.
    latest: dict[str, Any] = {"trigger_mode": "always_last"}
    each: dict[str, Any] = {"trigger_mode": "multiple"}
    model: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "show_progress": "minimal"}
    opening(blocks.load, handlers.open_page)
    opening(parts["fresh"].click, handlers.start_over)
    bind(parts["clip"].input, handlers.choose_clip, "clip")
    bind(parts["upload"].upload, handlers.upload, "upload")
    bind(parts["annotator"].change, handlers.draw, "annotator", **latest)
    bind(parts["clicked"].select, handlers.click, "corner")
    bind(parts["frame"].input, handlers.go_to, "frame", **latest)
    for by, button in parts["steps"].items():
        bind(button.click, partial(handlers.step, by=by), **each)
    bind(parts["chosen"].input, handlers.choose_object, "chosen")
    for event in (parts["name"].submit, parts["name"].blur):
        bind(event, handlers.rename, "name", "named")
    bind(parts["absent"].click, handlers.absent)
    bind(parts["remove"].click, handlers.remove)
    ways: dict[str, Way | None] = {"track": None, "track_back": "backwards", "track_on": "forwards"}
    for name, way in ways.items():
        bind(parts[name].click, partial(handlers.track, way=way), concurrency_limit=2, concurrency_id="track")
    bind(parts["stop"].click, handlers.stop)
    bind(parts["ask"].click, handlers.caption_all, **model)
    bind(parts["candidates"].click, handlers.candidates, **model)
    bind(parts["follow"].click, handlers.follow_the_box, "other", **model)
    bind(parts["caption"].blur, handlers.write_caption, "caption", "captioned")
    bind(parts["save"].click, handlers.save)
    bind(parts["record"].upload, handlers.open_record, "record", "line")
    bind(parts["by_clicks"].input, handlers.set_by_clicks, "by_clicks")


def _filling(handler: Callable[..., Any], parts: dict[str, Any], tabs: Tabs) -> Callable[..., Any]:
    """A handler that is given a tab's place instead of its session, and whose result goes by component, not by name."""

    def filled(shown: Shown) -> Any:
        return {parts[name]: value for name, value in shown.items()} or gr.skip()

    def session_at(place: str) -> str:
        with told():
            return tabs.session_at(place)

    @wraps(handler)
    def once(place: str, *inputs: Any) -> Any:
        return filled(handler(session_at(place), *inputs))

    @wraps(handler)
    def streamed(place: str, *inputs: Any) -> Any:
        yield from map(filled, handler(session_at(place), *inputs))

    return streamed if isgeneratorfunction(handler) else once
