"""What the page shows as HTML. Every text of a user's, a file's or a model's is escaped: it is shown and never run."""

from __future__ import annotations

from difflib import SequenceMatcher
from html import escape

import numpy as np

from internvl_chat.web.film import colour_of
from internvl_chat.web.pointing import PointedClip, PointedObject, spans_seen

_ROW_PX, _PLOT_WIDTH = 34, 600


def objects_table(pointed: PointedClip) -> str:
    """The objects with what is known of their tracks, and their captions."""
    if not pointed.objects:
        return "<p class='hint'>Draw a box around an object on any frame.</p>"
    rows = "".join(
        f"<tr><td>{_chip(one)}</td><td>{escape(_state_of(one))}</td><td class='caption'>{_caption_of(one)}</td></tr>"
        for one in pointed.objects
    )
    return f"<table class='objects'><tr><th>object</th><th>track</th><th>caption</th></tr>{rows}</table>"


def _chip(one: PointedObject) -> str:
    return f"<span class='chip' style='background:rgb{colour_of(one.number)}'></span>{escape(one.label)}"


def _state_of(one: PointedObject) -> str:
    num_seen = int(one.boxes_px.any(axis=1).sum())
    if not one.is_tracked:
        return f"to be tracked: {num_seen} of {one.num_frames} frames have a box"
    said = f"seen on {num_seen} of {one.num_frames} frames"
    seen = np.flatnonzero(one.boxes_px.any(axis=1))
    if not len(seen):
        return said
    least = int(seen[one.confidence[seen].argmin()])
    return f"{said}, least sure on frame {least} ({one.confidence[least]:.2f})"


def _caption_of(one: PointedObject) -> str:
    stale = "" if one.is_caption_current else " <small>(of an earlier track)</small>"
    others = "".join(f"<li>{escape(text)}</li>" for text in one.candidates[1:])
    return f"{escape(one.caption)}{stale}" + (f"<ul>{others}</ul>" if others else "")


def confidence_plot(pointed: PointedClip) -> str:
    """A line an object: where it is seen, how sure the tracker is, where boxes were set; the shown frame is marked."""
    if not pointed.objects:
        return ""
    step = _PLOT_WIDTH / max(1, pointed.num_frames - 1)
    height = _ROW_PX * len(pointed.objects)
    parts = []
    for row, one in enumerate(pointed.objects):
        base, colour = (row + 1) * _ROW_PX - 4, f"rgb{colour_of(one.number)}"
        room = _ROW_PX - 10
        parts.append(f"<line x1='0' x2='{_PLOT_WIDTH}' y1='{base}' y2='{base}' class='axis'/>")
        for start, stop in spans_seen(one):
            frames = [*range(start, stop, -(-pointed.num_frames // _PLOT_WIDTH)), stop - 1]
            points = " ".join(f"{f * step:.1f},{base - room * one.confidence[f]:.1f}" for f in frames)
            edge = f"{start * step:.1f},{base} {points} {(stop - 1) * step:.1f},{base}"
            parts.append(f"<polygon points='{edge}' fill='{colour}' fill-opacity='.3' stroke='{colour}'/>")
        for frame, box in one.given.items():
            mark = f"fill='{colour}'" if box else f"fill='none' stroke='{colour}'"
            parts.append(f"<circle cx='{frame * step:.1f}' cy='{base}' r='3.5' {mark}/>")
    now = pointed.frame * step
    parts.append(f"<line x1='{now:.1f}' x2='{now:.1f}' y1='0' y2='{height}' class='now'/>")
    view = f"viewBox='-6 0 {_PLOT_WIDTH + 12} {height}'"
    label = "confidence of each object's track over the frames"
    return f"<svg class='plot' {view} role='img' aria-label='{label}'>{''.join(parts)}</svg>"


def comparison(own: str, others: list[tuple[str, str]]) -> str:
    """A caption beside those that the same clip gets with other boxes, and the words that changed.

    Args:
        own: the caption with the object's own box.
        others: which box instead, and the caption with it.
    """
    rows = [f"<tr><th>own box</th><td class='caption'>{escape(own)}</td><td></td></tr>"]
    for box, text in others:
        verdict = "the same" if text == own else "another caption"
        rows.append(
            f"<tr><th>{escape(box)}</th><td class='caption'>{_changed_words(own, text)}</td><td>{verdict}</td></tr>"
        )
    return f"<table class='objects' id='comparison'>{''.join(rows)}</table>"


def _changed_words(before: str, after: str) -> str:
    old, new = before.split(), after.split()
    parts = []
    for kind, _, _, start, stop in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        words = escape(" ".join(new[start:stop]))
        if words:
            parts.append(words if kind == "equal" else f"<mark>{words}</mark>")
    return " ".join(parts)
