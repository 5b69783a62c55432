"""Boxes in the texts of records: their order and unit by all of an annotation's boxes, the rest record by record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from internvl_chat.constants import BOX_SCALE
from internvl_chat.data.checking import box_rules
from internvl_chat.data.checking.faults import KINDS, Fault, Finding
from internvl_chat.data.checking.lines import LineFacts
from internvl_chat.data.media.sources import MediaHeader

THOUSANDTHS = f"thousandths, 0 to {BOX_SCALE}"


def text_box_findings(file: Path, lines: Sequence[tuple[LineFacts, MediaHeader | None]]) -> Iterator[Finding]:
    """What is wrong with the boxes in the texts of an annotation's lines."""
    boxed = [(line, np.array(line.text.boxes), box_rules.size_px(header)) for line, header in lines if line.text.boxes]
    if not boxed:
        return
    fault = _fault_of_all([(boxes, size) for _, boxes, size in boxed])
    if fault:
        yield fault.at(file, boxed[0][0].line)
    if fault and KINDS[fault.code].severity == "error":
        return
    for line, boxes, _ in boxed:
        yield from (fault.at(file, line.line) for fault in box_rules.text_box_faults(boxes))


def _fault_of_all(boxed: Sequence[tuple[box_rules.Boxes, box_rules.Size]]) -> Fault | None:
    """What the statistics of all boxes in an entry's texts show."""
    every = np.concatenate([boxes for boxes, _ in boxed])
    known = [(boxes, size) for boxes, size in boxed if size]
    if not np.isfinite(every).all():
        return None
    beyond = sum(bool((boxes > BOX_SCALE).any()) for boxes, _ in known)
    if len(known) >= box_rules.FEWEST and all(box_rules.fits_pixels(boxes, size) for boxes, size in known):
        if beyond >= box_rules.TELLING_SHARE * len(known):
            found = f"boxes of {beyond} records exceed {BOX_SCALE}, all keep within the pixels of their pictures"
            return Fault("box-unit", found, THOUSANDTHS)
        extents = [extent for boxes, size in known if (extent := box_rules.extent_of(boxes, size))]
        if box_rules.seem_pixels(extents):
            found = f"the boxes of all {len(extents)} records keep within the pixels of their pictures"
            return Fault("box-unit", found, THOUSANDTHS)
    if box_rules.seems_xywh(every, np.full(4, float(BOX_SCALE))):
        found = "many boxes in texts run backwards; as x y w h all are inside the picture"
        return Fault("box-order", found, "x1 y1 x2 y2")
    extents = [extent for boxes, size in known if (extent := box_rules.extent_of(boxes, size))]
    return box_rules.unit_doubt(extents, "the boxes in texts") if len(known) == len(boxed) else None
