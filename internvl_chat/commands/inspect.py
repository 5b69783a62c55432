"""Say what a checkpoint is: family, layout, sizes, what is trained, and the memory that training and predicting take.

A folder with nothing but a config.json will do: the model is built without weights. Memory is an estimate for one GPU
in bfloat16; --ranks divides what ZeRO-3 divides.
"""

from __future__ import annotations

import argparse
import json
import sys

from internvl_chat.commands.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="folder or hub id")
    parser.add_argument("--num_adapter_layers", type=int, default=5, help="adapters to train (default: %(default)s)")
    parser.add_argument("--use_llm_lora", type=int, default=128, help="LoRA rank to train (default: %(default)s)")
    parser.add_argument("--freeze_mlp", action="store_true", help="the projector is not trained")
    parser.add_argument("--num_frames", type=int, default=48, help="frames of a sample (default: %(default)s)")
    parser.add_argument("--ranks", type=int, default=1, help="GPUs that ZeRO-3 spreads over (default: %(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.model.trainable import TrainablePart
    from internvl_chat.planning.inspection import inspect_checkpoint

    trained = TrainablePart(args.use_llm_lora, freeze_llm=False, freeze_mlp=args.freeze_mlp, freeze_backbone=True)
    report = inspect_checkpoint(
        args.checkpoint,
        trained,
        num_adapter_layers=args.num_adapter_layers,
        num_frames=args.num_frames,
        ranks=args.ranks,
    )
    sys.stdout.write(json.dumps(report.as_dict(), indent=2) + "\n" if args.json else report.as_text())
    return 0
