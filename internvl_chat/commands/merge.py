"""Make one complete model of a training checkpoint and its base: LoRA folded in, box adapters kept.

    python -m internvl_chat merge work_dirs/.../checkpoint-600 merged

The folder needs nothing else: eval_const.py and further training take it as it is. Folders that the original's
training saved, with LoRA inside, are folded likewise. The weights keep the base's dtype; --dtype float32 keeps what
bfloat16 would round away of LoRA's update.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from internvl_chat.commands.options import add_base, add_json, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="training checkpoint, or an original folder with LoRA inside")
    parser.add_argument("target", type=Path, help="new folder")
    add_base(parser)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the weights (default: as they are stored)")
    parser.add_argument("--max_shard_gb", type=float, default=5.0, help="largest file, GB (default: %(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    import torch

    from internvl_chat.data.prompts.tokenizer import rewrite_tokenizer
    from internvl_chat.model.export import merge_checkpoint

    count = merge_checkpoint(
        args.checkpoint,
        args.target,
        base_path=args.base,
        dtype=getattr(torch, args.dtype) if args.dtype else None,
        max_shard_bytes=int(args.max_shard_gb * 1e9),
    )
    rewrite_tokenizer(args.checkpoint, args.target)
    tell(args, f"{args.target}: {count} tensors; the base is no longer needed", out=args.target, tensors=count)
    return 0
