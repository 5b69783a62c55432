"""Fine-tune a base with LoRA and box adapters; started by the scripts in `shell/` under torchrun.

    torchrun --nproc_per_node 4 internvl_chat/train/finetune_w_bboxes_ml.py --model_name_or_path ... --meta_path ...

A single argument `settings.json` is accepted instead of flags. On a machine without a GPU the ranks train on CPU.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from internvl_chat import processes
from internvl_chat.command_line import meant, quieten

# Some say what they miss while they are imported.
quieten()
if __name__ == "__main__":
    processes.start()

import torch
import transformers
from peft import PeftModel
from transformers import (
    HfArgumentParser,
    PreTrainedConfig,
    set_seed,
)

from internvl_chat.contracts import UserError
from internvl_chat.data.prompts.encoder import PromptConfig
from internvl_chat.data.training_set.collator import PackCollator
from internvl_chat.families import Family, check_style, check_supported, family_of
from internvl_chat.files import read_json, take_any_text, write_json
from internvl_chat.inference.ranks import check_local_rank
from internvl_chat.model.attention_kernels import fastest_attention
from internvl_chat.model.loading import load_config, resolve_folder, tower_of, with_modules
from internvl_chat.planning.footprint import Footprint
from internvl_chat.train.agreement import agreed_checkpoint, found_by_ranks
from internvl_chat.train.arguments import RunArguments
from internvl_chat.train.build import (
    build_model,
    check_first_pass,
    load_text_processing,
    read_training_data,
    say_normalisation,
    trainable_part,
)
from internvl_chat.train.dry_run import NOTHING_TRAINED, describe_run
from internvl_chat.train.output_folder import (
    check_free_disk,
    check_same_data,
    data_facts,
    held,
    warn_of_another_batch,
    warn_of_another_prompt,
)
from internvl_chat.train.resume import (
    RUN_RECORD_NAME,
    EarlyStop,
    checked_checkpoint,
    engine_of,
    note_replaced_checkpoints,
)
from internvl_chat.train.trainer import BoxCaptionTrainer
from internvl_chat.train.workload import settle_recomputation

logger = logging.getLogger("internvl_chat.train")


class _FlagParser(HfArgumentParser):
    """transformers' parser, whose every flag would be listed before the error."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def parse_arguments(argv: list[str]) -> RunArguments:
    kinds = RunArguments.kinds()
    parser = _FlagParser(kinds, description=__doc__, allow_abbrev=False)
    try:
        if _is_settings_file(argv):
            return RunArguments.of(parser.parse_dict(read_json(Path(argv[0]))))
        *arguments, unknown = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    except UserError:
        raise
    except (ValueError, TypeError) as error:  # The trainer's own checks of flags that do not go together.
        raise UserError(f"{argv[0]}: {error}" if _is_settings_file(argv) else str(error)) from error
    flags = [word for word in unknown if word.startswith("--")]
    if unknown:
        known = [f"--{flag.name}" for kind in kinds for flag in fields(kind)]
        word = (flags or unknown)[0]
        raise UserError(f"unknown flag {word}: {meant(word, known, '--help lists the flags')}")
    return RunArguments.of(tuple(arguments))


def _is_settings_file(argv: list[str]) -> bool:
    return len(argv) == 1 and argv[0].endswith(".json") and not argv[0].startswith("-")


def trains_with_deepspeed(argv: list[str]) -> bool:
    """Whether this is a run under DeepSpeed, and no dry one.

    Read off the words, since the trainer's arguments already want the ranks to be there when they are made.
    """
    settings = read_json(Path(argv[0])) if _is_settings_file(argv) else argv
    words = [str(word).partition("=")[0].removeprefix("--").replace("-", "_") for word in settings]
    return "deepspeed" in words and "dry_run" not in words


def init_cpu_ranks() -> None:
    """Without a GPU, DeepSpeed's ranks talk over gloo; the group must exist before the model is built."""
    import deepspeed

    deepspeed.init_distributed(dist_backend="gloo", verbose=False)


def write_run_record(folder: Path, run: RunArguments, prompt_config: PromptConfig, facts: Mapping[str, object]) -> None:
    """`run.json`: the effective configuration, the versions, and the size of what is trained."""
    packages = ("torch", "transformers", "peft", "deepspeed", "accelerate", "numpy", "av")
    write_json(
        folder / RUN_RECORD_NAME,
        {
            "command": sys.argv,
            "model": asdict(run.model),
            "data": {**asdict(run.data), **prompt_config.flags()},
            "training": run.training.to_sanitized_dict(),
            "engine": engine_of(run.training),
            "versions": {"python": sys.version.split()[0], **{name: version(name) for name in packages}},
            **facts,
        },
    )


def sizes_of(model: torch.nn.Module) -> dict[str, int]:
    """How many parameters there are, and how many are trained.

    Raises:
        UserError: none is.
    """
    # Under ZeRO-3 a parameter's local shard is empty; `ds_numel` is its true size.
    sizes = [(p.requires_grad, getattr(p, "ds_numel", p.numel())) for p in model.parameters()]
    trained = sum(size for is_trained, size in sizes if is_trained)
    if not trained:
        raise UserError(NOTHING_TRAINED)
    return {"parameters": sum(size for _, size in sizes), "parameters_trained": trained}


def check_flags(run: RunArguments, family: Family, config: PreTrainedConfig) -> None:
    """Hold the flags that must be the base's own against it.

    Raises:
        UserError: one of them is another; the message says what to give.
    """
    base = run.model.model_name_or_path
    made_for = family.parts.downsample_ratio(config)
    if made_for not in (None, run.data.down_sample_ratio):
        raise UserError(
            f"--down_sample_ratio {run.data.down_sample_ratio}: the projector of {base} was made for {made_for}"
        )
    check_style(run.prompt.conv_style, family.parts.template_of(config), family)
    normalisation = family.parts.prompt_settings(config).get("normalize_type", run.prompt.normalize_type)
    if run.prompt.normalize_type != normalisation:
        raise UserError(
            f"--normalize_type {run.prompt.normalize_type}: the tower of {base} sees pixels normalised otherwise; "
            f"give --normalize_type {normalisation}"
        )


def tell_what_differs(run_record: Path, run: RunArguments, prompt_config: PromptConfig) -> None:
    """Of a run that goes on: where its batches or its prompts are not those of before."""
    args, of_data = run.training, asdict(run.data)
    batch_size = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    warn_of_another_batch(run_record, batch_size, {**of_data, **args.to_dict()})
    warn_of_another_prompt(run_record, {**of_data, **prompt_config.flags()})


def train(run: RunArguments) -> None:
    model_args, data_args, args = run.model, run.data, run.training
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO if args.should_log else logging.ERROR
    )
    resume_from = agreed_checkpoint(lambda: checked_checkpoint(run))
    set_seed(args.seed)

    config = load_config(model_args.model_name_or_path)
    family = family_of(config)
    check_flags(run, family, config)
    prompt_config = run.prompt_config(family.parts.tokens_per_tile(config, run.prompt.force_image_size))
    if resume_from:
        tell_what_differs(resume_from.parent / RUN_RECORD_NAME, run, prompt_config)
    with_modules(config, prompt_config.modules)
    check_supported({**asdict(model_args), **prompt_config.flags()}, family)
    if args.dry_run:
        sys.stdout.write(describe_run(run, prompt_config, trainable_part(model_args, config)))
        return
    args.check_masters()
    text = load_text_processing(model_args)
    tokenizer, new_tokens = text.tokenizer, text.new_tokens(config)
    if text.processor is not None:
        say_normalisation(text.processor, run.prompt.normalize_type, model_args.model_name_or_path)
    tower = tower_of(resolve_folder(model_args.model_name_or_path))
    samples, dataset, validation = read_training_data(data_args, args, tokenizer, prompt_config, tower)
    of_data = data_facts(samples, len(dataset))
    if resume_from:
        check_same_data(resume_from.parent / RUN_RECORD_NAME, of_data)
    check_first_pass(dataset)

    # Without DeepSpeed float16 is autocast's, over float32 weights.
    halves = {torch.bfloat16: args.bf16, torch.float16: args.fp16 and args.deepspeed}
    dtype = next((half for half, is_chosen in halves.items() if is_chosen), torch.float32)
    part = trainable_part(model_args, config, new_tokens)
    # The rank with the least memory decides: layers that differ would gather weights in different orders.
    recomputation = max(found_by_ranks(lambda: settle_recomputation(run, prompt_config, config, part, dataset.passes)))
    wanted = (prompt_config.modules, new_tokens, args.device)
    model, trained = build_model(model_args, dtype, tokenizer, run.prompt.force_image_size, recomputation, *wanted)
    footprint = Footprint(model.config, trained, model_args.num_adapter_layers, model_args.lora_dropout, dtype.itemsize)
    trainer = BoxCaptionTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        data_collator=PackCollator(family.data.blank(prompt_config)),
        processing_class=text.processor or tokenizer,
        trained=trained,
        prompt_config=prompt_config,
        max_packed_tokens=data_args.max_packed_tokens,
        footprint=footprint,
        validation=validation,
        max_bad_fraction=data_args.max_bad_fraction,
        callbacks=[EarlyStop(args.early_stopping_patience)] if args.early_stopping_patience else None,
    )
    facts: dict[str, Any] = {
        **of_data,
        "recomputation": asdict(recomputation),
        **sizes_of(model),
        "world_size": args.world_size,
        "lora": isinstance(model, PeftModel),
    }
    logger.info(
        "training %(parameters_trained)d of %(parameters)d parameters on %(samples)d samples in %(passes)d passes",
        facts,
    )
    if args.should_save:
        check_free_disk(Path(args.output_dir), int(facts["parameters_trained"]), dtype.itemsize)
        write_run_record(Path(args.output_dir), run, prompt_config, facts)

    started = time.monotonic()
    if args.should_save:
        note_replaced_checkpoints(Path(args.output_dir), resume_from)
    with fastest_attention():
        result = trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    trainer.check_weights()
    trainer.save_model()
    trainer.save_state()
    logger.info("trained to step %d in %.0f s: %s", result.global_step, time.monotonic() - started, args.output_dir)


def main() -> None:
    take_any_text()
    try:
        check_local_rank(int(os.environ.get("LOCAL_RANK", "0")))
        if not torch.cuda.is_available() and trains_with_deepspeed(sys.argv[1:]):
            init_cpu_ranks()
        # The trainer leaves out its progress bar where transformers only tells errors.
        transformers.logging.set_verbosity_warning()
        run = parse_arguments(sys.argv[1:])
        writes = run.training.should_save and not run.training.dry_run
        with held(Path(run.training.output_dir)) if writes else nullcontext():
            train(run)
    except UserError as error:
        sys.exit(f"error: {error}")
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    processes.run(main)
