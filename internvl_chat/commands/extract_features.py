"""Write features of videos to files that training and answers read in place of the videos (Artemis).

    python -m internvl_chat extract-features /data/videos --model work_dirs/artemis/start
    torchrun --nproc_per_node 4 -m internvl_chat extract-features /data/videos --model work_dirs/artemis/start
    python -m internvl_chat extract-features /data/valley --model work_dirs/artemis/start --pickles

Each video gets a .safetensors file of its name: what the model's tower makes of the frames that prediction shows. A
record names it as its 'video', or as 'features' beside a 'video' with tracks. Features made by another tower are
refused when they are read. With --pickles the original's .pkl files are converted, as features of this model's tower;
nothing but arrays is built from them. Files that are there are not made again; what cannot be read is named, files of
another tower's features too, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from internvl_chat.commands.options import (
    add_base,
    add_json,
    add_video_backend,
    counted,
    folder_to_write,
    positive_int,
    tell,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("videos", type=Path, metavar="VIDEOS", help="folder of the videos, or pickles, looked through to the bottom")
    add("--model", required=True, help="model whose tower it is: folder or hub id, of any stage")
    add_base(parser)
    add("--out", type=folder_to_write, metavar="DIR", help="folder for the features (default: beside the videos)")
    add("--pickles", action="store_true", help="convert the original's pickles of features")
    add("--batch_frames", type=positive_int, default=32, help="shown to the tower at a time (default: %(default)s)")
    add_video_backend(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.data.records.frame_folders import find_videos
    from internvl_chat.inference.features.extraction import Extracted, extract_features
    from internvl_chat.inference.handle import open_model
    from internvl_chat.inference.ranks import Ranks

    if args.pickles:
        sources = sorted(args.videos.rglob("*.pkl"))
        if not sources:
            raise UserError(f"{args.videos}: holds no .pkl")
    else:
        sources = find_videos(args.videos)
    out = args.out or args.videos
    ranks = Ranks.join()
    opened = open_model(args.model, base_path=args.base, video_backend=args.video_backend, ranks=ranks)
    mine: list[Extracted] = []
    for one in extract_features(opened, sources, args.videos, out, args.batch_frames, args.pickles):
        mine.append(one)
        if one.fault:
            sys.stderr.write(f"{one.fault}\n")
    every = [one for of_rank in ranks.gathered(mine) for one in of_rank]
    lost = sum(bool(one.fault) for one in every)
    if ranks.is_first:
        were_there = sum(one.was_there for one in every)
        made = len(every) - lost
        said = f"{out}: features of {counted(made, 'video')}; {were_there} were there, {lost} cannot be read"
        tell(args, said, out=out, features=made, were_there=were_there, failures=lost)
    ranks.leave()
    return 1 if lost else 0
