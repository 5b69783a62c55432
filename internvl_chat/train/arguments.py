"""The training script's flags. Each lives in one dataclass under the name it has on the command line."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from transformers import TrainingArguments

from internvl_chat.choices import Precision, VideoBackend
from internvl_chat.contracts import UserError
from internvl_chat.data.controls.base import Control, control_kinds
from internvl_chat.data.prompts.prompt_config import PromptConfig, PromptSettings
from internvl_chat.data.training_set.packing import LossReduction
from internvl_chat.inference.ranks import chosen_dtype

_NEW_WORKERS = "workers start anew each epoch, to draw other frames"
_ALL_TOKENS = "the loss is divided by the answers' tokens of all ranks, whatever number they are"
_OWN_ORDER = "passes come shuffled, and of similar length in a step with --group_by_length True"


@dataclass
class ModelArguments:
    """Which model, and which parts of it are trained."""

    model_name_or_path: str = field(metadata={"help": "Base InternVL: a folder or a hub id.", "aliases": ["--model"]})
    num_adapter_layers: int = field(
        default=5,
        metadata={"help": "A box adapter follows each of the last N ViT layers; 1 = single-layer variant, 0 = none."},
    )
    use_llm_lora: int = field(default=0, metadata={"help": "LoRA rank on the language model; 0 = none."})
    use_backbone_lora: int = field(default=0, metadata={"help": "LoRA rank on the ViT; 0 = none."})
    lora_alpha: float = field(
        default=0.0, metadata={"help": "LoRA's update is scaled by alpha / rank; 0 = twice each rank."}
    )
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout in front of LoRA's first matrix."})
    freeze_llm: bool = field(default=False, metadata={"help": "Freeze the language model; with LoRA it always is."})
    freeze_mlp: bool = field(default=False, metadata={"help": "Freeze the projector between ViT and language model."})
    freeze_backbone: bool = field(default=False, metadata={"help": "Freeze the ViT (box adapters are always trained)."})
    unfreeze_vit_layers: int = field(
        default=0, metadata={"help": "Train the ViT's layers from this one on; -2 = the last two, 0 = as the rest."}
    )
    unfreeze_lm_head: bool = field(default=False, metadata={"help": "Train the output layer beside LoRA."})
    vision_select_layer: int = field(
        default=-1, metadata={"help": "ViT layer whose output is used; only -1, the last."}
    )
    drop_path_rate: float = field(
        default=0.0, metadata={"help": "Share of the frames that skip a branch of the last ViT layer."}
    )
    ps_version: Literal["v2"] = field(default="v2", metadata={"help": "Pixel shuffle; only v2."})
    grad_checkpoint: str = field(
        default="auto",
        metadata={
            "help": "What is computed again in the backward pass: auto, as little as memory asks for; False, nothing; "
            "cheap, what costs little in the language model; True, all layers, or a number of the language model's."
        },
    )
    use_fast_tokenizer: bool = field(default=False, metadata={"help": "Passed on to the tokenizer's loader."})
    attn_implementation: str | None = field(
        default=None, metadata={"help": "'sdpa' (default), 'eager' or 'flash_attention_2'."}
    )

    def __post_init__(self) -> None:
        for flag, value, supported in (
            ("vision_select_layer", self.vision_select_layer, -1),
            ("ps_version", self.ps_version, "v2"),
        ):
            if value != supported:
                raise UserError(f"--{flag} {value} is not supported: the native InternVL computes {supported}")
        for flag, value in (("use_llm_lora", self.use_llm_lora), ("use_backbone_lora", self.use_backbone_lora)):
            if value < 0:
                raise UserError(f"--{flag} {value}: expected a rank from 1, or 0 for none")
        if self.lora_alpha < 0:
            raise UserError(f"--lora_alpha {self.lora_alpha}: expected more than 0, or 0 for twice the rank")
        if not 0 <= self.drop_path_rate < 1:
            raise UserError(f"--drop_path_rate {self.drop_path_rate}: expected 0 to below 1")


@dataclass
class DataArguments:
    """Which data, and how it is fed to the model."""

    meta_path: str = field(metadata={"help": "Meta JSON that lists the datasets.", "aliases": ["--meta"]})
    down_sample_ratio: float = field(default=0.5, metadata={"help": "Pixel-shuffle ratio; must be the checkpoint's."})
    sampling_method: str = field(
        default="rand",
        metadata={"help": "Frames: 'rand' or 'middle' of equal segments, or 'fps1', 'fps0.5', ... a second."},
    )
    captions_per_pass: int = field(
        default=0, metadata={"help": "Most answers to one prompt that share a pass over it; 0 = all, 1 = each alone."}
    )
    max_packed_tokens: int = field(
        default=0,
        metadata={"help": "Fill packs of samples up to this many tokens; 0 = PER_DEVICE_BATCH_SIZE samples a pass."},
    )
    loss_reduction: LossReduction = field(
        default="token",
        metadata={"help": "An answer of x tokens weighs x, 1 or the square root of x."},
    )
    max_bad_fraction: float = field(
        default=0.001, metadata={"help": "Share of the samples that may be unreadable; they are skipped and named."}
    )
    eval_videos: int = field(
        default=0, metadata={"help": "Videos held out of training, captioned and scored at every evaluation."}
    )
    frame_cache: str | None = field(
        default=None, metadata={"help": "Folder that keeps resized frames; pays where the same frames come back."}
    )
    frame_cache_gb: float = field(default=20.0, metadata={"help": "Most gigabytes that the frame cache takes."})
    video_backend: VideoBackend = field(default="pyav", metadata={"help": "Video reader."})


@dataclass
class FinetuneArguments(TrainingArguments):
    """HF's training arguments under the names of InternVL's scripts; on a machine without a GPU they train on CPU."""

    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Start anew in a used output_dir; without it training resumes."}
    )
    universal: bool = field(
        default=False,
        metadata={
            "help": "Under DeepSpeed go on with another number of ranks: all but the optimizer's moments goes on."
        },
    )
    evaluation_strategy: str | None = field(default=None, metadata={"help": "Old name of --eval_strategy."})
    dry_run: int = field(
        default=0,
        metadata={"help": "Print what would run on so many ranks, and exit; 0 = train.", "nargs": "?", "const": 1},
    )
    group_by_length: bool = field(default=False, metadata={"help": "Put samples of similar length into a step."})
    early_stopping_patience: int = field(
        default=0, metadata={"help": "Stop after this many evaluations without a better metric; 0 = never."}
    )
    warmup_ratio: float = field(default=0.0, metadata={"help": "Share of all steps that warm the learning rate up."})

    def __post_init__(self) -> None:
        if not torch.cuda.is_available():
            self.use_cpu = True
            self.dataloader_pin_memory = False
        if self.gradient_accumulation_steps < 1:
            raise UserError(
                f"--gradient_accumulation_steps {self.gradient_accumulation_steps}: the global batch must hold "
                "at least one sample a process (BATCH_SIZE >= PER_DEVICE_BATCH_SIZE x GPUS x NNODES)"
            )
        # The scripts say `--evaluation_strategy no`; a flag under the new name wins.
        if self.evaluation_strategy is not None and self.eval_strategy == "no":  # type: ignore[has-type]
            self.eval_strategy = self.evaluation_strategy
        # The scripts say `--warmup_ratio 0.03`; steps that were asked for win.
        if self.warmup_ratio and not self.warmup_steps:  # type: ignore[has-type]
            if not 0 <= self.warmup_ratio < 1:
                raise UserError(f"--warmup_ratio {self.warmup_ratio}: expected 0 to 1")
            # The trainer reads a number below 1 as a share of all steps.
            self.warmup_steps = self.warmup_ratio
        if self.eval_strategy != "no" and self.metric_for_best_model is None:  # type: ignore[has-type]
            # Captions are scored, not a loss: the best checkpoint is the one with the best captions.
            self.metric_for_best_model, self.greater_is_better = "CIDEr", True
        if self.eval_strategy == "steps" and not self.eval_steps:  # type: ignore[has-type]
            # HF would evaluate whenever it logs; what is scored when it is saved can be kept as the best.
            self.eval_steps = self.save_steps
        if self.early_stopping_patience and self.eval_strategy == "no":
            raise UserError("--early_stopping_patience needs --eval_strategy steps (or epoch) and --eval_videos")
        for flag, is_given, reason in (
            ("dataloader_persistent_workers", self.dataloader_persistent_workers, _NEW_WORKERS),
            ("label_smoothing_factor", self.label_smoothing_factor, "packed rows are trained on the labels alone"),
            ("dataloader_drop_last", self.dataloader_drop_last, "every pass of an epoch is trained"),
            ("average_tokens_across_devices", not self.average_tokens_across_devices, _ALL_TOKENS),
            ("train_sampling_strategy", self.train_sampling_strategy != "random", _OWN_ORDER),
        ):
            if is_given:
                raise UserError(f"--{flag} {getattr(self, flag)} is not supported: {reason}")
        # Gradient checkpointing is a matter of the model's arguments: it is set up once, in the entry.
        self.gradient_checkpointing = False
        self.remove_unused_columns = False
        # Or a run that has diverged would be logged as one that stands still. In float16 a pass may overflow.
        self.logging_nan_inf_filter = self.fp16
        # LoRA alone cannot say which parameters of a batch go unused; with boxes in every batch none do.
        self.ddp_find_unused_parameters = False
        super().__post_init__()
        if not self.dry_run:
            named: Precision = "bfloat16" if self.bf16 else "float16" if self.fp16 else "float32"
            chosen_dtype(named, torch.device("cpu" if self.use_cpu else "cuda"))

    def check_masters(self) -> None:
        """See to it that small updates add up somewhere.

        Raises:
            UserError: weights would be bfloat16, of which only DeepSpeed keeps float32 copies.
        """
        if self.bf16 and not self.deepspeed:
            raise UserError(
                "--bf16 True without --deepspeed: AdamW's small updates would be rounded away in bfloat16 weights; "
                "give --deepspeed zero_stage3_config.json or one of shell/deepspeed, or --bf16 False"
            )


class RunArguments(NamedTuple):
    """Every flag of a run, in the dataclass that owns it; `controls` are those of the folder data/controls."""

    model: ModelArguments
    data: DataArguments
    training: FinetuneArguments
    prompt: PromptSettings
    controls: tuple[Control, ...]

    @staticmethod
    def kinds() -> tuple[type, ...]:
        """The dataclasses that own the flags, in the order in which they are parsed."""
        return (ModelArguments, DataArguments, FinetuneArguments, PromptSettings, *control_kinds())

    @classmethod
    def of(cls, parsed: tuple[Any, ...]) -> RunArguments:
        """From one object of each of `kinds`."""
        model, data, training, prompt, *controls = parsed
        return cls(model, data, training, prompt, tuple(controls))

    def prompt_config(self, tokens_per_frame: int) -> PromptConfig:
        """How a sample becomes a prompt, for a model that takes so many tokens for a tile."""
        return PromptConfig(**asdict(self.prompt), tokens_per_frame=tokens_per_frame, controls=self.controls)
