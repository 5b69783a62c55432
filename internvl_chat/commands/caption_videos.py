"""Caption videos: single ones, lists, or whole folders, resumable.

    python -m internvl_chat caption-videos CLIPS/ --model CKPT --out captions
    python -m internvl_chat caption-videos list.csv --model CKPT --out captions --strategy fps0.5 --window 20
    torchrun --nproc_per_node 4 -m internvl_chat caption-videos CLIPS/ --model CKPT --out captions
    python -m internvl_chat caption-videos CLIPS/ --model CKPT --out captions --engine ray

A list is a text file with a path a line, JSONL, CSV or Parquet with a column 'video' and, if it likes, 'question';
its paths are relative to it. OUT/captions.jsonl has a line a video, with the frames that were seen, when they are
shown, and what part of a long video was not seen. Every finished caption is kept in OUT/progress: the same command
writes what is left and what has changed. Videos that cannot be read are in OUT/failures.jsonl, and the exit code is 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from internvl_chat.commands.options import (
    add_decoding_options,
    add_dtype,
    add_feeding_options,
    add_json,
    counted,
    folder_to_write,
    positive_int,
    tell,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, nargs="+", help="folders, lists (.txt, .jsonl, .csv, .parquet), or videos")
    add("--model", required=True, help="base, training checkpoint or merged model: a folder or a hub id")
    add_dtype(parser)
    add("--base", help="the checkpoint's base, if it was moved since training")
    add(
        "--template",
        help="conversation template: of CogVLM2-Video chat, vqa or base; of others as training calls them "
        "(default: what the model's files say)",
    )
    add("--out", type=folder_to_write, required=True, help="folder of the captions")
    add(
        "--question",
        help="what is asked of each video (default: Please describe this video in detail. With --objects: as training "
        "asks about an object)",
    )
    add(
        "--objects",
        action="store_true",
        help="a caption of each tracked object: 'tracks' of a list's record, or beside the video STEM.json, "
        "object_bboxes.npy or object_bboxes.txt",
    )
    add(
        "--strategy",
        metavar="chat|base|uniformN|fpsX",
        help="frames shown: the one nearest to each second, up to 24; 24 of the first minute; N over all of it; X a "
        "second (default: what the model was made for)",
    )
    add("--window", type=float, metavar="SECONDS", help="a caption for every so many seconds (default: one a video)")
    add("--txt", action="store_true", help="also OUT/txt: a text file a video")
    add("--layout", choices=("cogvideox",), help="also prompts.txt and videos.txt, line by line")
    add("--parquet", action="store_true", help="also captions.parquet")
    add(
        "--quantize",
        type=int,
        choices=(8, 4),
        help="bits a number of the language model's matrices (default: as they are); needs requirements/quantize.txt",
    )
    add("--video_timeout", type=float, metavar="SECONDS", help="give a video up that is waited for longer")
    add(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="who writes: this process or torchrun's ranks; or actors of a Ray cluster, by RAY_ADDRESS or on this "
        "machine, which need requirements/ray.txt and all see OUT (default: %(default)s)",
    )
    add("--actors", type=positive_int, help="--engine ray: how many (default: one a GPU, or one a node without any)")
    add_decoding_options(parser)
    add_feeding_options(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.data.prompts.frame_choice import FrameChoice
    from internvl_chat.data.records.video_lists import list_videos
    from internvl_chat.inference.decoding import Decoding

    decoding = Decoding.from_arguments(args)
    choice = None if args.strategy is None else FrameChoice.named(args.strategy)
    if args.window is not None and not 0 < args.window < float("inf"):
        raise UserError(f"--window {args.window:g}: expected more than 0 seconds")
    if args.video_timeout is not None and not 0 < args.video_timeout < float("inf"):
        raise UserError(f"--video_timeout {args.video_timeout:g}: expected more than 0 seconds")
    if args.actors and args.engine != "ray":
        raise UserError(f"--actors {args.actors}: belongs to --engine ray")
    if args.layout and (args.window or args.objects):
        other = "--window" if args.window else "--objects"
        raise UserError(f"--layout and {other}: the layout has one caption a video; drop one of them")
    videos = list_videos(args.source)
    from internvl_chat.families import family_in, style_called
    from internvl_chat.inference.handle import open_model
    from internvl_chat.inference.predict import BatchLimits
    from internvl_chat.inference.ranks import Ranks
    from internvl_chat.inference.video_captions.caption_files import Forms
    from internvl_chat.inference.video_captions.clips_shown import Request
    from internvl_chat.inference.video_captions.run_videos import Engine, caption_videos
    from internvl_chat.model.loading import resolve_folder

    forms = Forms(args.txt, bool(args.layout), args.parquet).and_those_in(args.out)
    forms.check((video.name for video in videos), several_each=bool(args.window or args.objects))
    engine = Engine(args.engine == "ray", args.actors)
    if engine.on_ray:
        from internvl_chat.inference.video_captions.ray_engine import check_ray

        check_ray()
    ranks = Ranks.join(args.dtype)
    if engine.on_ray and ranks.size > 1:
        raise UserError("--engine ray under torchrun: one of them says who works; start it with python")
    folder = resolve_folder(args.model)
    opened = open_model(
        folder,
        base_path=args.base,
        conv_style=args.template and style_called(args.template, family_in(folder)),
        video_backend=args.video_backend,
        ranks=ranks,
        quantize_bits=args.quantize,
    )
    shown = opened.encoder.config
    choice = choice or FrameChoice.named(shown.frame_choice or f"uniform{shown.num_frames}")
    request = Request(args.question, choice, args.window, args.objects)
    limits = BatchLimits(args.batch_tokens, args.num_workers, args.video_timeout)
    captioned = caption_videos(opened, videos, request, decoding, limits, args.out, args.model, engine)
    if opened.ranks.is_first:
        captioned.write(args.out, forms)
        done = captioned.counts()
        said = (
            f"{args.out}: {counted(len(captioned.records), 'caption')}, {captioned.num_new} of them new at "
            f"{done['captions_per_s']:.2f} a second ({done['tokens_per_s']:.0f} tokens a second), "
            f"{counted(len(captioned.failures), 'failure')}"
        )
        tell(args, said, out=args.out, **done)
    opened.ranks.leave()
    return 1 if captioned.failures else 0
