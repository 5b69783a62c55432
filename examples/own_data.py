"""Clips in a folder of your own, with boxes in a CSV, as records to train on: no folder needs to be renamed.

python examples/own_data.py FOLDER BOXES.csv OUT

BOXES.csv has the columns video, object, caption, frame, x1, y1, x2, y2: a line a frame on which the object is seen,
frames from 0, corners in pixels. OUT gets records.jsonl and meta.json, which `check`, `picture` and training read.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

from internvl_chat.files import write_json, write_jsonl

folder, table, out = map(Path, sys.argv[1:])
QUESTION = "Describe this video in one sentence, and focus on {name} located in the coordinate list."

boxes: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(dict)
with table.open(newline="", encoding="utf-8") as file:
    for row in csv.DictReader(file):
        corners = [float(row[corner]) for corner in ("x1", "y1", "x2", "y2")]
        boxes[row["video"], row["object"], row["caption"]][row["frame"]] = corners

records = (
    {
        "id": f"{Path(video).stem}-{name}",
        "video": video,
        "tracks": [{"name": name, "boxes": of_track, "unit": "pixels", "order": "xyxy"}],
        "conversations": [
            {"from": "human", "value": f"<video>\n{QUESTION.format(name=name)}"},
            {"from": "gpt", "value": caption},
        ],
    }
    for (video, name, caption), of_track in boxes.items()
)
count = write_jsonl(out / "records.jsonl", records)
write_json(
    out / "meta.json", {"own": {"root": str(folder.absolute()), "annotation": str(out.absolute() / "records.jsonl")}}
)
print(f"{count} records: now run\n  python -m internvl_chat check {out / 'meta.json'}")
