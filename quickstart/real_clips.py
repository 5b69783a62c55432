"""The same path on real clips: prepare, fine-tune the tiny base on them, predict, and swap boxes.

    make real-clips CLIPS=/path/to/clips

The folder is in IntentVC's layout, `<category>/<id>/<id>.mp4` with `object_bboxes.txt`, and holds `captions.json`.
It is copied first and never written to. Clips that show the same video with another object are asked again with each
other's box. The tiny base has never seen a real picture nor most of English, so it has to learn the clips by heart: the
run checks the path on your data, not a model's worth.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from itertools import combinations
from pathlib import Path

import numpy as np

from internvl_chat.boxes import load_boxes
from internvl_chat.data.records.annotations import read_captions
from internvl_chat.data.records.intentvc import boxes_path_of, category_of, video_path_of
from internvl_chat.files import write_json
from quickstart.steps import REPOSITORY, SCRIPT, annotate, launch, measure_control, run

MAX_STEPS = 400
PREDICTION_FLAGS = ["--num_frames", "6", "--max_new_tokens", "96"]


def twins_of(root: Path, ids: list[str]) -> dict[str, str]:
    """Pairs of ids that show the same video, both ways."""
    digests = {i: hashlib.sha256(video_path_of(root, i).read_bytes()).hexdigest() for i in ids}
    pairs = [(a, b) for a, b in combinations(ids, 2) if digests[a] == digests[b]]
    return dict(pairs) | {b: a for a, b in pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of clips")
    parser.add_argument("--max_steps", type=int, default=MAX_STEPS, help="(default: %(default)s)")
    args = parser.parse_args()

    folder = REPOSITORY / "work_dirs" / "real_clips"
    if not (args.clips / "captions.json").is_file() or args.clips.resolve().is_relative_to(folder):
        sys.exit(f"error: {args.clips}: expected a folder with captions.json, outside {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    data = folder / "clips"
    shutil.copytree(args.clips, data)
    captions = read_captions(data / "captions.json")
    ids = list(captions)

    run([sys.executable, "generate_npy_bboxes.py", "--root", data])
    absent_rows = {i: int(np.sum(~load_boxes(boxes_path_of(video_path_of(data, i))).any(axis=1))) for i in ids}
    sys.stdout.write(f"all-zero rows: {absent_rows}\n")
    meta = annotate(data, sorted({category_of(i) for i in ids}))
    trained = folder / "train"
    # The frames that prediction shows come back in every epoch: each is decoded once.
    flags = ["--frame_cache", str(folder / "frames")]
    launch(SCRIPT, meta, trained, flags, max_steps=args.max_steps, batch_size=4)

    prediction = ["--model", trained, "--meta", meta, *PREDICTION_FLAGS]
    ids_file = folder / "ids.json"
    write_json(ids_file, ids)
    run(
        [sys.executable, "eval_const.py", *prediction, "--ids", ids_file, "--references", data / "captions.json"]
        + ["--out", folder / "results"]
    )
    predicted = json.loads((folder / "results" / "result.json").read_text())["captions"]
    for video_id, text in predicted.items():
        sys.stdout.write(f"{video_id}: {text}\n")
    own_set = {i: text in captions[i] for i, text in predicted.items()}

    twins = twins_of(data, ids)
    swapped = None
    if twins:
        write_json(folder / "twins.json", twins)
        write_json(folder / "twin_ids.json", list(twins))
        swapped = measure_control(
            trained,
            meta,
            ["--ids", folder / "twin_ids.json", "--other_target", folder / "twins.json", *PREDICTION_FLAGS]
            + ["--references", data / "captions.json", "--sheet", folder / "contact_sheet.png"],
        )["swapped_box"]
    sys.stdout.write(json.dumps({"own_caption": own_set, "swapped_box": swapped, "absent_rows": absent_rows}) + "\n")


if __name__ == "__main__":
    main()
