"""Clips in a folder of your own, with boxes in a CSV, as records to train on: no folder needs to be renamed.

python examples/own_data.py FOLDER BOXES.csv OUT [interpolate]

BOXES.csv has the columns video, object, label, frame, x1, y1, x2, y2, caption: a row a frame, from 0, or a key frame
where `interpolate` is said; corners in pixels; captions on any of an object's rows. OUT gets records.jsonl and
meta.json, which `check`, `picture` and training read. `convert-data --from boxes-csv` does the same and refuses what is
wrong with a table: this shows what a record is made of.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

from internvl_chat.files import write_json, write_jsonl

if len(sys.argv) not in (4, 5):
    sys.exit(__doc__)
folder, table, out = map(Path, sys.argv[1:4])
are_key_frames = sys.argv[4:] == ["interpolate"]
QUESTION = "Describe this video in one sentence, and focus on {name} located in the coordinate list."

names: dict[tuple[str, str], str] = {}
boxes: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(dict)
captions: dict[tuple[str, str], list[str]] = defaultdict(list)
with table.open(newline="", encoding="utf-8") as file:
    for row in csv.DictReader(file):
        thing = (row["video"], row["object"])
        names[thing] = names.get(thing) or row.get("label") or ""
        boxes[thing][row["frame"]] = [float(row[corner]) for corner in ("x1", "y1", "x2", "y2")]
        if row["caption"] and row["caption"] not in captions[thing]:
            captions[thing].append(row["caption"])

records = (
    {
        "id": f"{Path(video).stem}-{object_id}-{number}",
        "video": video,
        "tracks": [
            {
                "name": names[video, object_id] or object_id,
                "boxes": boxes[video, object_id],
                "unit": "pixels",
                "order": "xyxy",
                # Left out, `check` asks where few frames have a box.
                **({"interpolate": True} if are_key_frames else {}),
            }
        ],
        "conversations": [
            {"from": "human", "value": f"<video>\n{QUESTION.format(name=names[video, object_id] or object_id)}"},
            {"from": "gpt", "value": caption},
        ],
    }
    for (video, object_id), of_object in captions.items()
    for number, caption in enumerate(of_object)
)
count = write_jsonl(out / "records.jsonl", records)
write_json(
    out / "meta.json", {"own": {"root": str(folder.absolute()), "annotation": str(out.absolute() / "records.jsonl")}}
)
print(f"{count} records: now run\n  python -m internvl_chat check {out / 'meta.json'}")
