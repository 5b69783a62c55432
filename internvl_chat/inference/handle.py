"""A model that can be asked anything: a base, a training checkpoint on top of its base, or a merged folder."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from internvl_chat.choices import VideoBackend
from internvl_chat.data.prompts.encoder import SampleEncoder
from internvl_chat.data.prompts.prompt_config import PROMPT_CONFIG_NAME, PromptConfig
from internvl_chat.data.prompts.tokenizer import load_tokenizer
from internvl_chat.families import check_style, family_of
from internvl_chat.inference.ranks import ALONE, Ranks
from internvl_chat.inference.weights import check_quantizer, file_marks, load_quantized, load_weights
from internvl_chat.model.loading import load_config, resolve_folder, tower_of


@dataclass(frozen=True)
class ModelHandle:
    """A model's folder and how it is asked; `load` reads its weights, with LoRA folded in unless it is to be kept.

    `quantize_bits` are those of a number of the language model's matrices, 8 or 4; None leaves them as they are.
    """

    folder: Path
    base_path: str | None
    encoder: SampleEncoder
    ranks: Ranks = ALONE
    keep_lora: bool = False
    quantize_bits: int | None = None

    @classmethod
    def from_arguments(cls, args: Namespace, ranks: Ranks) -> ModelHandle:
        """The model that an entry's parsed flags name, those of `add_model_options`; see `open_model`."""
        return open_model(
            args.model,
            base_path=args.base,
            conv_style=args.conv_style,
            max_dynamic_patch=args.max_dynamic_patch,
            video_backend=args.video_backend,
            ranks=ranks,
        )

    def load(self) -> PreTrainedModel:
        """The model in eval mode, on this rank's device.

        Raises:
            UserError: its weights, or those of its base, cannot be used.
        """
        if self.quantize_bits is not None:
            return load_quantized(self.folder, self.base_path, self.ranks, self.quantize_bits)
        return load_weights(self.folder, self.base_path, self.ranks, self.keep_lora)

    def identity(self) -> Any:
        """What tells this model from others: its files as they lie there, and its precision."""
        quantized = [] if self.quantize_bits is None else [f"{self.quantize_bits} bits"]
        return [file_marks(self.folder), self.base_path, str(self.ranks.dtype), *quantized]


def open_model(
    model: str | Path,
    *,
    base_path: str | None = None,
    conv_style: str | None = None,
    max_dynamic_patch: int | None = None,
    video_backend: VideoBackend = "pyav",
    ranks: Ranks = ALONE,
    keep_lora: bool = False,
    quantize_bits: int | None = None,
) -> ModelHandle:
    """Find a model, and the prompts that it was trained with; no weights are read yet.

    A folder without a prompt configuration, such as a base, is asked as its family's own chat asks it.

    Args:
        model: folder or hub id, in either layout.
        base_path: where a checkpoint's base lies now, if it was moved since training.
        conv_style: conversation template, where the files do not tell.
        max_dynamic_patch: most tiles of an image; 1 never cuts one. None is what the model was trained with.
        keep_lora: leave LoRA's matrices beside the weights, as in training.
        quantize_bits: see `ModelHandle`.
    Raises:
        UserError: nothing is there, or it is of no known family, or has no tokenizer; or bitsandbytes is needed.
    """
    if quantize_bits is not None:
        check_quantizer(quantize_bits)
    folder = resolve_folder(model)
    saved = PromptConfig.load(folder) if (folder / PROMPT_CONFIG_NAME).is_file() else None
    model_config = load_config(folder)
    config = saved or prompt_config_of(model_config)
    # What a recipe trains on is bounded by its memory; what can be asked, by the positions that the model knows.
    positions = getattr(model_config.text_config, "max_position_embeddings", 0)
    config = replace(config, max_seq_length=max(config.max_seq_length, positions))
    if conv_style is not None:
        check_style(conv_style, None, family_of(model_config))
        config = replace(config, conv_style=conv_style)
    if max_dynamic_patch is not None:
        config = replace(
            config,
            dynamic_image_size=config.dynamic_image_size and max_dynamic_patch > 1,
            min_dynamic_patch=min(config.min_dynamic_patch, max_dynamic_patch),
            max_dynamic_patch=max_dynamic_patch,
        )
    encoder = SampleEncoder(load_tokenizer(folder), config, video_backend, tower=tower_of(folder, base_path))
    return ModelHandle(folder, base_path, encoder, ranks, keep_lora, quantize_bits)


def prompt_config_of(config: PreTrainedConfig) -> PromptConfig:
    """How a model is asked that does not say: as its family's own chat asks it."""
    return PromptConfig.of(**family_of(config).parts.prompt_settings(config))
