"""Rewrite a complete model in the other layout; no value is changed, and the way back gives the same bits.

    python -m internvl_chat convert InternVL2-2B InternVL2-2B-hf --to hf
    python -m internvl_chat convert work_dirs/merged merged-original --to original

`original` is the layout of InternVLChatModel (`model_type: internvl_chat`), with IntentVCNet's names for the box
adapters; `hf` is transformers' own. Tokenizer files and prompt_config.json are copied. At most one shard is in memory.
With --vision_tower the source is a bare language model, and the target a base to pretrain that names both and copies
neither (Artemis: Llama and CLIP).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from internvl_chat.commands.options import add_json, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="folder of a complete model, or a bare language model")
    parser.add_argument("target", type=Path, help="new folder")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--to", choices=("original", "hf"), help="layout to write")
    way.add_argument("--vision_tower", metavar="TOWER", help="begin a base of a bare language model and this tower")
    parser.add_argument("--max_shard_gb", type=float, default=5.0, help="largest file, GB (default: %(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.data.prompts.tokenizer import rewrite_tokenizer
    from internvl_chat.model.export import begin_base, convert_checkpoint

    if args.vision_tower:
        begin_base(args.source, args.vision_tower, args.target)
        text = f"{args.target}: a base of {args.source} and {args.vision_tower}, to be pretrained"
        tell(args, text, out=args.target)
        return 0
    count = convert_checkpoint(args.source, args.target, args.to, int(args.max_shard_gb * 1e9))
    if args.to == "hf":
        rewrite_tokenizer(args.source, args.target)
    tell(args, f"{args.target}: {count} tensors in the {args.to} layout", out=args.target, tensors=count)
    return 0
