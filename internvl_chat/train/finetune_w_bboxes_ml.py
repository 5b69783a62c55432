"""Fine-tune InternVL with LoRA and box adapters; started by the scripts in `shell/` under torchrun.

    torchrun --nproc_per_node 4 internvl_chat/train/finetune_w_bboxes_ml.py --model_name_or_path ... --meta_path ...

A single argument `settings.json` is accepted instead of flags. On a machine without a GPU the ranks train on CPU.
"""

from __future__ import annotations

import difflib
import logging
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path

import torch
import transformers
from peft import PeftModel, get_peft_model
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    HfArgumentParser,
    InternVLConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    set_seed,
)

from internvl_chat.constants import IMG_CONTEXT
from internvl_chat.contracts import Sample, SkippedPass, UserError
from internvl_chat.data.annotations import load_meta, read_json, read_mix, write_json
from internvl_chat.data.collator import PackCollator
from internvl_chat.data.dataset import CaptionDataset
from internvl_chat.data.encoder import PromptConfig, SampleEncoder
from internvl_chat.data.frame_cache import FrameCache
from internvl_chat.data.packing import group_by_prompt
from internvl_chat.data.templates import template_named
from internvl_chat.data.tokenizer import add_special_tokens, load_tokenizer
from internvl_chat.evaluation.asks import Viewpoint
from internvl_chat.evaluation.generation import caption_plainly
from internvl_chat.evaluation.scores import NO_JAVA_SUFFIX, score_captions
from internvl_chat.model.checkpoint import (
    load_base,
    load_config,
)
from internvl_chat.model.configuration import tokens_per_frame
from internvl_chat.model.conversion.config import is_original, template_of
from internvl_chat.model.footprint import Footprint
from internvl_chat.model.loading import read_config_file, resolve_folder
from internvl_chat.model.recomputation import recompute_layers
from internvl_chat.model.shared_prefix import use_shared_prefix_attention
from internvl_chat.model.stochastic_depth import use_stochastic_depth
from internvl_chat.model.trainable import TrainablePart, unfrozen_layers
from internvl_chat.train.arguments import DataArguments, FinetuneArguments, ModelArguments
from internvl_chat.train.dry_run import NOTHING_TRAINED, describe_run
from internvl_chat.train.planning import settle_recomputation
from internvl_chat.train.resume import (
    RUN_RECORD_NAME,
    EarlyStop,
    check_same_parts_trained,
    checkpoint_to_resume,
    note_replaced_checkpoints,
)
from internvl_chat.train.trainer import BoxCaptionTrainer
from internvl_chat.train.validation import Validation, hold_out

logger = logging.getLogger("internvl_chat.train")

_PASSES_TRIED = 3


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, FinetuneArguments]:
    kinds = (ModelArguments, DataArguments, FinetuneArguments)
    parser = HfArgumentParser(kinds, description=__doc__)
    try:
        if _is_settings_file(argv):
            return parser.parse_dict(read_json(Path(argv[0])))
        *arguments, unknown = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    except UserError:
        raise
    except (ValueError, TypeError) as error:  # The trainer's own checks of flags that do not go together.
        raise UserError(f"{argv[0]}: {error}" if _is_settings_file(argv) else str(error)) from error
    flags = [word for word in unknown if word.startswith("--")]
    if unknown:
        known = [f"--{flag.name}" for kind in kinds for flag in fields(kind)]
        similar = difflib.get_close_matches((flags or unknown)[0], known, n=1)
        hint = f"did you mean {similar[0]}?" if similar else "--help lists the flags"
        raise UserError(f"unknown flag {(flags or unknown)[0]}: {hint}")
    return tuple(arguments)


def _is_settings_file(argv: list[str]) -> bool:
    return len(argv) == 1 and argv[0].endswith(".json") and not argv[0].startswith("-")


def trains_with_deepspeed(argv: list[str]) -> bool:
    """Whether this is a run under DeepSpeed, and no dry one.

    Read off the words, since the trainer's arguments already want the ranks to be there when they are made.
    """
    settings = read_json(Path(argv[0])) if _is_settings_file(argv) else argv
    words = [str(word).partition("=")[0].removeprefix("--") for word in settings]
    return "deepspeed" in words and "dry_run" not in words


def init_cpu_ranks() -> None:
    """Without a GPU, DeepSpeed's ranks talk over gloo; the group must exist before the model is built."""
    import deepspeed

    deepspeed.init_distributed(dist_backend="gloo", verbose=False)


def load_text_processing(args: ModelArguments) -> tuple[PreTrainedTokenizerBase, ProcessorMixin | None]:
    """The base's tokenizer, with InternVL's special tokens, and its processor where it ships one."""
    folder = resolve_folder(args.model_name_or_path)
    if is_original(read_config_file(folder)):
        return load_tokenizer(folder), None
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path, use_fast=args.use_fast_tokenizer)
    add_special_tokens(tokenizer)
    try:
        processor = AutoProcessor.from_pretrained(args.model_name_or_path)
    except (OSError, ValueError, AttributeError):
        return tokenizer, None
    processor.tokenizer = tokenizer
    return tokenizer, processor


def trainable_part(args: ModelArguments, config: InternVLConfig) -> TrainablePart:
    """What the flags train of a model.

    Raises:
        UserError: they name a ViT layer, or an output layer, that the model does not have.
    """
    try:
        vit_layers = unfrozen_layers(args.unfreeze_vit_layers, config.vision_config.num_hidden_layers)
    except ValueError as error:
        raise UserError(f"--{error}, the ViT's layers") from error
    if args.unfreeze_lm_head and config.tie_word_embeddings:
        raise UserError("--unfreeze_lm_head: this model has no output layer of its own, its embeddings are used twice")
    return TrainablePart(
        args.use_llm_lora,
        args.freeze_llm,
        args.freeze_mlp,
        args.freeze_backbone,
        args.use_backbone_lora,
        vit_layers,
        args.unfreeze_lm_head,
    )


def build_model(
    args: ModelArguments,
    dtype: torch.dtype,
    tokenizer: PreTrainedTokenizerBase | None = None,
    image_size_px: int | None = None,
    recomputed_layers: int = 0,
) -> tuple[torch.nn.Module, TrainablePart]:
    """The base with box adapters and LoRA, for a tokenizer and a tile size, and what of it is trained."""
    model = load_base(
        args.model_name_or_path,
        num_adapter_layers=args.num_adapter_layers,
        dtype=dtype,
        attn_implementation=args.attn_implementation,
        image_size_px=image_size_px,
        num_tokens=len(tokenizer) if tokenizer else None,
        image_token_id=tokenizer.convert_tokens_to_ids(IMG_CONTEXT) if tokenizer else None,
    )
    model.config.use_cache = False
    use_shared_prefix_attention(model)
    use_stochastic_depth(model, args.drop_path_rate)
    trained = trainable_part(args, model.config)
    recompute_layers(model, recomputed_layers)
    wrapped: torch.nn.Module = model
    lora = trained.lora_config(model.config.text_config.model_type, args.lora_dropout)
    if lora is not None:
        # ZeRO-3 wants one dtype, so LoRA's matrices stay in the model's.
        wrapped = get_peft_model(model, lora, autocast_adapter_dtype=False)
    trained.mark(wrapped)
    return wrapped, trained


def check_first_pass(dataset: CaptionDataset) -> None:
    """Tell of a broken setup now, not after minutes of loading weights.

    Raises:
        UserError: none of the first passes can be read; the first one's reason.
    """
    first = [dataset[index] for index in range(min(_PASSES_TRIED, len(dataset)))]
    broken = [p for p in first if isinstance(p, SkippedPass)]
    if len(broken) == len(first):
        raise UserError(broken[0].reason)


def validation_of(samples: Sequence[Sample], encoder: SampleEncoder, num_frames: int) -> Validation:
    """Greedy captions of the samples' prompts, scored as the challenge does, but for METEOR, which needs Java."""
    view = Viewpoint(encoder, num_frames)

    def caption(model: torch.nn.Module, prompts: Sequence[Sample]) -> Iterable[str]:
        return (caption_plainly(model, view, prompt) for prompt in prompts)

    def score(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
        scores = score_captions(predictions, references, java=False).corpus()
        return {name.removesuffix(NO_JAVA_SUFFIX): value for name, value in scores.items()}

    groups = []
    for group in group_by_prompt(list(dict.fromkeys(samples))):
        try:
            encoder.pixels(group[0], view.plan(replace(group[0], turns=group[0].turns[:-1])))
            groups.append(group)
        except UserError as error:
            logger.warning("not validated on: %s", error)
    if not groups:
        raise UserError("none of the held-out videos can be read: the warnings above say why")
    return Validation.of(groups, caption, score)


def write_run_record(
    folder: Path, args: tuple[ModelArguments, DataArguments, FinetuneArguments], facts: dict[str, object]
) -> None:
    """`run.json`: the effective configuration, the versions, and the size of what is trained."""
    model_args, data_args, training_args = args
    packages = ("torch", "transformers", "peft", "deepspeed", "accelerate", "numpy", "av")
    write_json(
        folder / RUN_RECORD_NAME,
        {
            "command": sys.argv,
            "model": asdict(model_args),
            "data": asdict(data_args),
            "training": training_args.to_sanitized_dict(),
            "versions": {"python": sys.version.split()[0], **{name: version(name) for name in packages}},
            **facts,
        },
    )


def train(model_args: ModelArguments, data_args: DataArguments, args: FinetuneArguments) -> None:
    transformers.logging.set_verbosity_warning()
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO if args.should_log else logging.ERROR
    )
    resume_from = checkpoint_to_resume(args)
    if resume_from:
        check_same_parts_trained(resume_from, model_args)
    set_seed(args.seed)

    config = load_config(model_args.model_name_or_path)
    if data_args.down_sample_ratio != config.downsample_ratio:
        raise UserError(
            f"--down_sample_ratio {data_args.down_sample_ratio}: the projector of {model_args.model_name_or_path} "
            f"was made for {config.downsample_ratio}"
        )
    template_named(data_args.conv_style, template_of(config))
    prompt_config = PromptConfig(
        tokens_per_frame=tokens_per_frame(config, data_args.force_image_size),
        **{f.name: getattr(data_args, f.name) for f in fields(PromptConfig) if f.name != "tokens_per_frame"},
    )
    if args.dry_run:
        sys.stdout.write(describe_run(model_args, data_args, args, trainable_part(model_args, config)))
        return
    tokenizer, processor = load_text_processing(model_args)
    samples = read_mix(load_meta(Path(data_args.meta_path)))
    cache = None
    if data_args.frame_cache:
        cache = FrameCache(Path(data_args.frame_cache), int(data_args.frame_cache_gb * 1e9))
    encoder = SampleEncoder(tokenizer, prompt_config, data_args.video_backend, cache)
    validation = None
    if args.eval_strategy != "no":
        if data_args.eval_videos < 1:
            raise UserError(f"--eval_strategy {args.eval_strategy} needs --eval_videos, the number to hold out")
        samples, held_out = hold_out(samples, data_args.eval_videos, args.seed)
        validation = validation_of(held_out, encoder, data_args.max_num_frame)
    dataset = CaptionDataset(
        samples,
        encoder,
        min_num_frame=data_args.min_num_frame,
        max_num_frame=data_args.max_num_frame,
        sampling_method=data_args.sampling_method,
        seed=args.seed if args.data_seed is None else args.data_seed,
        captions_per_pass=data_args.captions_per_pass or None,
        loss_reduction=data_args.loss_reduction,
    )
    check_first_pass(dataset)

    dtype = torch.bfloat16 if args.bf16 else torch.float32
    part = trainable_part(model_args, config)
    recomputed_layers = settle_recomputation(model_args, data_args, args, config, part, dataset.passes)
    model, trained = build_model(model_args, dtype, tokenizer, data_args.force_image_size, recomputed_layers)
    footprint = Footprint(model.config, trained, model_args.num_adapter_layers, model_args.lora_dropout, dtype.itemsize)
    trainer = BoxCaptionTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        data_collator=PackCollator(data_args.force_image_size),
        processing_class=tokenizer if processor is None else processor,
        trained=trained,
        prompt_config=prompt_config,
        max_packed_tokens=data_args.max_packed_tokens,
        footprint=footprint,
        validation=validation,
        max_bad_fraction=data_args.max_bad_fraction,
        callbacks=[EarlyStop(args.early_stopping_patience)] if args.early_stopping_patience else None,
    )
    # Under ZeRO-3 a parameter's local shard is empty; `ds_numel` is its true size.
    sizes = [(p.requires_grad, getattr(p, "ds_numel", p.numel())) for p in model.parameters()]
    if not any(is_trained for is_trained, _ in sizes):
        raise UserError(NOTHING_TRAINED)
    facts = {
        "samples": len(samples),
        "passes": len(dataset),
        "recomputed_layers": recomputed_layers,
        "parameters": sum(size for _, size in sizes),
        "parameters_trained": sum(size for is_trained, size in sizes if is_trained),
        "world_size": args.world_size,
        "lora": isinstance(model, PeftModel),
    }
    logger.info(
        "training %(parameters_trained)d of %(parameters)d parameters on %(samples)d samples in %(passes)d passes",
        facts,
    )
    if args.should_save:
        write_run_record(Path(args.output_dir), (model_args, data_args, args), facts)

    started = time.monotonic()
    if resume_from is None and args.should_save:
        note_replaced_checkpoints(Path(args.output_dir))
    result = trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    trainer.save_model()
    trainer.save_state()
    logger.info("trained to step %d in %.0f s: %s", result.global_step, time.monotonic() - started, args.output_dir)


def main() -> None:
    try:
        if not torch.cuda.is_available() and trains_with_deepspeed(sys.argv[1:]):
            init_cpu_ranks()
        train(*parse_arguments(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
