"""Open a page to point at objects in videos, track them, and read what a model says of them.

    python -m internvl_chat web --model CKPT --clips VIDEOS
    python -m internvl_chat web --demo

Boxes are drawn on any frame, followed both ways, mended and marked as absent; every object is captioned in one pass,
and "does it follow the box" asks again with no box and with another object's. Tracks, captions and records to train on
are saved; a record is opened again. What a browser pointed at is kept under --state and is there after a reload. The
page asks no other host for anything. It needs requirements/web.txt and, for CSRT, requirements/track.txt.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_chat.commands.options import add_base, add_video_backend, count, positive_int

if TYPE_CHECKING:
    from internvl_chat.api import Captioner

_BYTES_PER_GB = 1e9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "--model", "--checkpoint_path", help="base, training checkpoint or merged model: a folder or a hub id"
    )
    asked.add_argument("--demo", action="store_true", help="the tiny model of this repository, and clips made for it")
    add_base(parser)
    add = parser.add_argument
    add("--clips", type=Path, help="a folder of videos to choose from, at any depth; others are uploaded")
    add("--num_frames", type=positive_int, help="frames shown of a video (default: as in training)")
    add("--tracker", default="csrt", help="csrt, mil, or a SAM 2, SAM 3 or EdgeTAM folder (default: %(default)s)")
    add("--min_confidence", type=float, help="below it an object is absent (default: 0.3, a model's 0.5)")
    add("--device", help="where a tracking model runs (default: the first GPU, else the CPU)")
    add("--state", type=Path, default=Path("work_dirs/web"), help="where sessions are kept (default: %(default)s)")
    add("--max_gb", type=positive_int, default=10, help="of all sessions; the oldest go first (default: %(default)s)")
    add("--host", default="127.0.0.1", help="0.0.0.0 opens the page to the network (default: %(default)s)")
    add("--port", type=count, default=7860, help="(default: %(default)s)")
    add_video_backend(parser)


def run(args: argparse.Namespace) -> int:
    page, url = open_page(args)
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    page.block_thread()
    return 0


def open_page(args: argparse.Namespace) -> tuple[Any, str]:
    """Start the server of a page in a thread of its own; the page and its address.

    Raises:
        UserError: a flag, a package, the model or the address cannot be used.
    """
    from internvl_chat.contracts import UserError
    from internvl_chat.web.shelf import Shelf

    if args.demo and args.clips is not None:
        raise UserError("--demo brings clips of its own: leave --clips out, or name a --model")
    args.state.mkdir(parents=True, exist_ok=True)
    # Before gradio is imported: it asks for news at home, and keeps files in the system's temporary folder.
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(args.state.resolve() / "shown"))
    try:
        import gradio_image_annotation  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"the page needs gradio and its drawing component: install requirements/web.txt ({error})"
        ) from error
    clips, note = args.clips, ""
    if args.demo:
        from internvl_chat.web.demo import NOTE, demo_clips

        clips, note = demo_clips(args.state / "demo_clips"), NOTE
    shelf = Shelf(clips)
    from internvl_chat.trackers.choosing import choose_tracker
    from internvl_chat.web.handlers import Handlers
    from internvl_chat.web.page import build_page, launch_settings
    from internvl_chat.web.sessions import Sessions
    from internvl_chat.web.workbench import Workbench

    tracker = choose_tracker(args.tracker, args.min_confidence, args.device, args.video_backend)
    limit_bytes = int(args.max_gb * _BYTES_PER_GB)
    sessions = Sessions(args.state / "sessions", limit_bytes)
    page = build_page(Handlers(_captioner(args), tracker, Workbench(sessions, shelf)), "Point, track, caption", note)
    try:
        _, url, _ = page.launch(
            server_name=args.host,
            server_port=args.port,
            max_file_size=limit_bytes,
            allowed_paths=[str(sessions.root.resolve())],
            prevent_thread_lock=True,
            **launch_settings(),
        )
    except OSError as error:
        raise UserError(f"--host {args.host} --port {args.port}: cannot be opened ({error})") from error
    return page, url


def _captioner(args: argparse.Namespace) -> Captioner:
    """The model, with its weights: the first question need not wait for them."""
    from internvl_chat.api import Captioner

    model, base = args.model, args.base
    if args.demo:
        from internvl_chat.web.demo import demo_model

        model, base = demo_model()
    captioner = Captioner.open(model, num_frames=args.num_frames, base_path=base, video_backend=args.video_backend)
    sys.stdout.write(f"{model}: {captioner.model.num_parameters() / 1e6:.1f} M parameters\n")
    return captioner
