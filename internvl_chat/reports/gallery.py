"""A gallery of one's own clips: frames with their track, and what each run says; it needs no references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from internvl_chat.contracts import Sample
from internvl_chat.reports.clip_pictures import ShownClip
from internvl_chat.reports.html import RunFacts, render
from internvl_chat.reports.plots import colour_of

TEMPLATE = "gallery.html.j2"


@dataclass(frozen=True)
class GalleryInput:
    """What a gallery shows.

    Args:
        predictions: captions by run and id.
        clips: samples by id, those that are known; others are a card of text.
        facts: how each run was made.
        known: answers that are known, by id.
    """

    title: str
    predictions: Mapping[str, Mapping[str, str]]
    clips: Mapping[str, Sample]
    facts: Sequence[RunFacts]
    known: Mapping[str, Sequence[str]]
    num_clips: int = 100
    num_frames: int = 8


@dataclass(frozen=True)
class GalleryCard:
    """A clip of the gallery; `differs` says whether the runs say different things of it."""

    id: str
    name: str
    question: str
    shown: ShownClip
    captions: Sequence[tuple[int, str]]
    known: Sequence[str]
    differs: bool


@dataclass(frozen=True)
class Gallery:
    """The page as HTML text, and why clips are not shown in it, by id."""

    html: str
    faults: Mapping[str, str]


def render_gallery(source: GalleryInput) -> Gallery:
    """Draw the gallery; the same input gives the same text."""
    ids = list(dict.fromkeys(i for said in source.predictions.values() for i in said))
    cards = [_card(source, clip_id) for clip_id in ids[: source.num_clips]]
    html = render(
        TEMPLATE,
        title=source.title,
        runs=list(source.predictions),
        facts=[facts for facts in source.facts if facts.is_known],
        colours=[colour_of(number) for number in range(len(source.predictions))],
        cards=cards,
        num_all=len(ids),
        names=sorted({card.name for card in cards if card.name}),
    )
    return Gallery(html, {card.id: card.shown.fault for card in cards if card.shown.fault})


def _card(source: GalleryInput, clip_id: str) -> GalleryCard:
    sample = source.clips.get(clip_id)
    said = [(number, texts[clip_id]) for number, texts in enumerate(source.predictions.values()) if clip_id in texts]
    question = sample.turns[-1].text.split("\n")[-1] if sample and sample.turns else ""
    if sample and question == sample.object_name:
        # In the challenge's layout nothing but the object's name is known.
        question = ""
    return GalleryCard(
        clip_id,
        sample.object_name if sample else "",
        question,
        ShownClip.of(sample, source.num_frames, as_film=True),
        said,
        source.known.get(clip_id, ()),
        len({text for _, text in said}) > 1,
    )
