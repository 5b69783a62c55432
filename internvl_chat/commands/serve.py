"""Serve a model over HTTP, OpenAI-compatible: chat completions with images, videos and the tracks of objects.

    python -m internvl_chat serve --model CKPT --media_root CLIPS/
    curl http://127.0.0.1:8000/v1/models

Any client of OpenAI's chat completions can ask; tracks travel in 'mm_processor_kwargs' (docs/serving.md). Requests that
wait are answered together, clients in turn. /health and /metrics are for those who run it. SIGTERM ends it when all
that was accepted is answered.

Keys of clients are better given in the environment, as INTERNVL_CHAT_API_KEY with spaces between them: everybody on a
machine can list the flags of its processes. Needs requirements/serve.txt.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from pathlib import Path

from internvl_chat.commands.options import add_feeding_options, add_model_options, positive_int
from internvl_chat.serving.server_limits import ServerLimits

KEY_VARIABLE = "INTERNVL_CHAT_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    add_feeding_options(parser)
    add = parser.add_argument
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0 for all of this machine's (default: %(default)s)",
    )
    add("--port", type=positive_int, default=8000, help="(default: %(default)s)")
    add("--name", help="what requests call the model (default: its folder's name)")
    add("--media_root", type=Path, help="folder that requests may name files of (default: none)")
    add(
        "--allow_hosts",
        nargs="+",
        default=[],
        metavar="HOST",
        help="hosts that files of requests are fetched from, if their addresses are public (default: none)",
    )
    add(
        "--api_key",
        nargs="+",
        metavar="KEY",
        help=f"keys of clients (default: those in {KEY_VARIABLE}, else none is asked for)",
    )
    for limit in fields(ServerLimits):
        help_text = f"{limit.metadata['help']} (default: %(default)s)"
        add(f"--{limit.name}", type=positive_int, default=limit.default, help=help_text)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError

    limits = ServerLimits(**{limit.name: getattr(args, limit.name) for limit in fields(ServerLimits)})
    if args.media_root is not None and not args.media_root.is_dir():
        raise UserError(f"--media_root {args.media_root}: is no folder")
    keys = args.api_key or os.environ.pop(KEY_VARIABLE, "").split()
    if not all(keys):
        raise UserError("--api_key: an empty key would let everybody in")
    try:
        from internvl_chat.serving.preparing import Answering
        from internvl_chat.serving.server import Access, serve
    except ImportError as error:
        raise UserError(f"serve: install requirements/serve.txt ({error})") from error
    from internvl_chat.api import Captioner
    from internvl_chat.inference.handle import ModelHandle
    from internvl_chat.inference.predict import BatchLimits
    from internvl_chat.inference.ranks import Ranks

    opened = ModelHandle.from_arguments(args, Ranks(precision=args.dtype))
    name = args.name or Path(args.model).resolve().name
    serve(
        Captioner(opened, num_frames=args.num_frames),
        Answering(name, args.max_new_tokens, args.temperature),
        Access(keys, args.media_root, args.allow_hosts),
        limits,
        BatchLimits(args.batch_tokens, args.num_workers),
        host=args.host,
        port=args.port,
    )
    return 0
