"""Plan a training run before it starts: what fits into the GPUs, GB and milliseconds by part, hours.

What is not given is chosen: samples a pass, checkpointing, ZeRO stage. A run that cannot fit is refused with the
smallest change that makes it fit. A config.json is enough of a model; of the data only the annotations are read, and
with --num_passes not even these: before there is any, a plan is for as much as IntentVC has, and says so. Times come
from rates measured on one H200, scaled to other kinds; the plan prints them. The defaults are those of
shell/internvl3.0/2nd_finetune/roiattention_ml.sh.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_chat.commands.options import DEFAULT_META, add_json, count, positive_int
from internvl_chat.planning.cards import GPUS

if TYPE_CHECKING:
    from internvl_chat.planning.plan import Workload

# Of IntentVC's training set: videos, captions of each, and tokens of a caption, about 13 words.
_VIDEOS, _CAPTIONS, _CAPTION_TOKENS = 980, 5, 20


def positive(text: str) -> float:
    """An argparse type: a number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{value}: expected more than 0")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", "--model_name_or_path", required=True, help="base model: folder or hub id")
    add("--meta", "--meta_path", type=Path, help=f"meta JSON (default: {DEFAULT_META}, where its data is there)")
    add("--num_passes", type=positive_int, help="prompts of an epoch, in place of the meta JSON")
    add("--captions_per_pass", type=count, default=0, help="answers sharing a prompt; 0 = all (default: %(default)s)")
    add("--min_num_frame", type=positive_int, default=32, help="fewest frames (default: %(default)s)")
    add("--max_num_frame", type=positive_int, default=48, help="most frames (default: %(default)s)")
    add("--max_dynamic_patch", type=positive_int, default=12, help="most tiles of an image (default: %(default)s)")
    add("--num_train_epochs", type=positive, default=2.0, help="epochs (default: %(default)s)")
    add("--batch_size", type=positive_int, default=16, help="passes of a step on all GPUs (default: %(default)s)")
    add("--num_adapter_layers", type=count, default=5, help="box adapters (default: %(default)s)")
    add("--use_llm_lora", type=count, default=128, help="LoRA rank, 0 trains all of the LLM (default: %(default)s)")
    add("--lora_dropout", type=float, default=0.05, help="(default: %(default)s)")
    add("--freeze_llm", action="store_true", help="without LoRA: the language model is not trained")
    add("--freeze_mlp", action="store_true", help="the projector is not trained")
    add("--train_backbone", action="store_true", help="the ViT is trained")
    add("--per_device_train_batch_size", type=positive_int, help="samples a pass (default: chosen)")
    add("--grad_checkpoint", default="auto", help="as the training script's (default: %(default)s, chosen)")
    add("--zero_stage", type=int, choices=(1, 2, 3), help="(default: chosen)")
    add("--gpus", type=positive_int, default=4, help="GPUs on all nodes (default: %(default)s)")
    add("--gpu", choices=GPUS, default="h100", help="sets rates and memory (default: %(default)s)")
    add("--gpu_memory_gb", type=positive, help="memory of a GPU in GiB (default: the kind's)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.data.records.annotations import load_meta, read_samples
    from internvl_chat.data.records.record_questions import group_by_prompt
    from internvl_chat.model.loading import load_config, resolve_folder
    from internvl_chat.model.trainable import TrainablePart
    from internvl_chat.planning.plan import Choices, Machine, plan_run
    from internvl_chat.train.workload import ShownAmounts, recomputation_asked_for, workload_of

    if args.min_num_frame > args.max_num_frame:
        raise UserError(f"--min_num_frame {args.min_num_frame}: expected at most --max_num_frame {args.max_num_frame}")
    if args.batch_size < args.gpus:
        raise UserError(f"--batch_size {args.batch_size}: expected at least one sample for each of {args.gpus} GPUs")
    workload = _assumed(args, args.num_passes) if args.num_passes else None
    if workload is None:
        try:
            samples = [sample for entry in load_meta(args.meta or DEFAULT_META) for sample in read_samples(entry)]
        except UserError as error:
            if args.meta:
                raise
            sys.stderr.write(
                f"there is no data yet ({error}): the plan is for {_VIDEOS} videos with {_CAPTIONS} captions each, as "
                "IntentVC has; --meta or --num_passes and --captions_per_pass say otherwise\n"
            )
            workload = _assumed(args, _VIDEOS)
        else:
            workload = workload_of(
                group_by_prompt(samples, args.captions_per_pass or None),
                shown=ShownAmounts(
                    args.min_num_frame, args.max_num_frame, args.max_dynamic_patch, args.max_dynamic_patch > 1
                ),
                epochs=args.num_train_epochs,
                batch_size=args.batch_size,
            )
    machine = Machine(args.gpus, int((args.gpu_memory_gb or GPUS[args.gpu].memory_gib) * 2**30), args.gpu)
    config = load_config(resolve_folder(args.model))
    recomputed = recomputation_asked_for(args.grad_checkpoint, config.text_config.num_hidden_layers)
    plan = plan_run(
        config,
        TrainablePart(args.use_llm_lora, args.freeze_llm, args.freeze_mlp, not args.train_backbone),
        args.num_adapter_layers,
        workload,
        machine,
        Choices(args.per_device_train_batch_size, recomputed, args.zero_stage),
        lora_dropout=args.lora_dropout,
    )
    sys.stdout.write(json.dumps(plan.as_dict(), indent=2) + "\n" if args.json else plan.as_text())
    return 0


def _assumed(args: argparse.Namespace, passes: int) -> Workload:
    """So many prompts of videos with boxes, as no data says otherwise."""
    from internvl_chat.planning.plan import Workload

    return Workload(
        passes,
        args.captions_per_pass or _CAPTIONS,
        _CAPTION_TOKENS,
        True,
        args.min_num_frame,
        args.max_num_frame,
        args.num_train_epochs,
        args.batch_size,
    )
