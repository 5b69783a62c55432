"""The contact sheet of box control: a clip with its own box, with every probe's, and what was said each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from internvl_chat.contracts import UserError
from internvl_chat.data.media.drawing import Strip, contact_sheet
from internvl_chat.inference.requests import Ask, Viewpoint
from internvl_chat.scoring.control_record import OWN, Probe
from internvl_chat.tasks.control.probes import ControlResult

_SWAP = "swap"


def control_sheet(
    result: ControlResult, asked: Mapping[Probe, Sequence[Ask]], view: Viewpoint, num_clips: int
) -> Image.Image:
    """The first `num_clips` clips: with their own box, and with that of each probe at its largest level.

    Clips that were asked with another object's box come first, one of the two objects each.

    Raises:
        UserError: no clip was captioned.
    """
    # Levels of a probe ascend.
    strongest = {probe.name: probe for probe in asked}
    asks = {probe: {own_id(probe, ask): ask for ask in asked[probe]} for probe in strongest.values()}
    strips: list[Strip] = []
    for clip_id in _chosen(result, num_clips):
        for probe, by_id in asks.items():
            if clip_id in by_id and clip_id in result.captions.get(probe, {}):
                lines = [result.captions[probe][clip_id], f"[{_about(result, probe, clip_id)}]"]
                strips.append(view.strip(by_id[clip_id].samples[0], lines))
    if not strips:
        raise UserError("--sheet: no clip was captioned")
    return contact_sheet(strips)


def own_id(probe: Probe, ask: Ask) -> str:
    """The id of the question that a probe's ask puts otherwise."""
    return ask.id.removesuffix(probe.ask_id(""))


def _chosen(result: ControlResult, num_clips: int) -> list[str]:
    chosen: list[str] = []
    for clip_id in [*result.swapped, *result.right]:
        is_twin = clip_id in result.swapped and result.other_target[clip_id] in chosen
        if clip_id in result.right and clip_id not in chosen and not is_twin:
            chosen.append(clip_id)
    return chosen[:num_clips]


def _about(result: ControlResult, probe: Probe, clip_id: str) -> str:
    """Whose box it is, and what became of the caption."""
    text, target = result.captions[probe][clip_id], clip_id
    if probe == OWN:
        box = "its own box"
    elif probe.name == _SWAP:
        target = result.other_target[clip_id]
        box = f"box of {target}"
    else:
        box = "no box" if probe.name == "null" else f"box after {probe.name} {probe.level:g}"
    said = [] if probe == OWN else ["changed" if text != result.right[clip_id] else "the same"]
    if target in result.references and (probe == OWN or probe.name == _SWAP):
        said.append("right" if text in result.references[target] else "wrong")
    return ", ".join([f"clip {clip_id}", box, *said])
