"""What a run is made of: tokenizer, model, training set and validation, built from the flags."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from peft import get_peft_model
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from internvl_chat.constants import NORMALISATIONS
from internvl_chat.contracts import Sample, SkippedPass, UserError
from internvl_chat.data.media.frame_cache import FrameCache
from internvl_chat.data.prompts.encoder import PromptConfig, SampleEncoder
from internvl_chat.data.prompts.tokenizer import add_special_tokens, read_tokenizer
from internvl_chat.data.records.annotations import load_meta, read_mix
from internvl_chat.data.records.record_questions import group_by_prompt
from internvl_chat.data.training_set.dataset import CaptionDataset
from internvl_chat.families import family_in, family_of, read_config_file
from internvl_chat.inference.generation import caption_plainly
from internvl_chat.inference.requests import Viewpoint
from internvl_chat.model.checkpoint import load_base
from internvl_chat.model.loading import own_config, resolve_folder
from internvl_chat.model.memory.lora_sum import sum_in_place
from internvl_chat.model.memory.recomputation import Recomputation, recompute
from internvl_chat.model.shared_prefix import use_shared_prefix_attention
from internvl_chat.model.stochastic_depth import use_stochastic_depth
from internvl_chat.model.trainable import TrainablePart, unfrozen_layers
from internvl_chat.scoring.captions.caption_scores import CHARACTERS_SUFFIX, NO_JAVA_SUFFIX, score_captions
from internvl_chat.train.arguments import DataArguments, FinetuneArguments, ModelArguments
from internvl_chat.train.validation import Validation, hold_out

logger = logging.getLogger(__name__)

# A model that does not end its captions yet must not hold up its training.
VALIDATION_TOKENS = 128

_PASSES_TRIED = 3


class TextProcessing(NamedTuple):
    """A base's tokenizer with its family's special tokens, and its processor where it ships one.

    Args:
        num_added: how many of those tokens the base's own tokenizer lacks; they have the highest ids.
    """

    tokenizer: PreTrainedTokenizerBase
    processor: ProcessorMixin | None
    num_added: int

    def new_tokens(self, config: PreTrainedConfig) -> range:
        """The ids that a base of this configuration has never seen, whether or not it has rows to spare for them.

        None, if all of them only mark the places of embeddings: what their rows hold is never read.
        """
        num_tokens, family, named = len(self.tokenizer), family_of(config), own_config(copy.deepcopy(config))
        new = range(min(num_tokens - self.num_added, config.text_config.vocab_size), num_tokens)
        named.image_token_id = self.tokenizer.convert_tokens_to_ids(family.data.IMAGE_TOKEN)
        return range(0) if set(new) <= set(family.parts.placeholder_ids(named)) else new


def load_text_processing(args: ModelArguments) -> TextProcessing:
    """What reads and writes a base's text."""
    folder = resolve_folder(args.model_name_or_path)
    family = family_in(folder)
    if family.original.is_original(read_config_file(folder)):
        tokenizer = read_tokenizer(folder)
        return TextProcessing(tokenizer, None, add_special_tokens(tokenizer, family.data.SPECIAL_TOKENS))
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path, use_fast=args.use_fast_tokenizer)
    num_added = add_special_tokens(tokenizer, family.data.SPECIAL_TOKENS)
    try:
        processor = AutoProcessor.from_pretrained(args.model_name_or_path)
    except (OSError, ValueError, AttributeError):
        processor = None
    # A base without one gets its tokenizer back.
    if not isinstance(processor, ProcessorMixin):
        return TextProcessing(tokenizer, None, num_added)
    processor.tokenizer = tokenizer
    return TextProcessing(tokenizer, processor, num_added)


def say_normalisation(processor: ProcessorMixin, normalize_type: str, base: str) -> None:
    """Let a processor, which is saved beside the weights, say how this run normalises pixels.

    Others read the saved files and prepare pictures by them; a base whose own files say otherwise is worth a warning.
    """
    mean, std = NORMALISATIONS[normalize_type]
    said = processor.image_processor
    if not np.allclose((said.image_mean, said.image_std), (mean, std), atol=1e-3):
        logger.warning(
            "the processor of %s says mean %s, and --normalize_type %s is %s: the run trains with the latter, and its "
            "files say so",
            base,
            list(said.image_mean),
            normalize_type,
            list(mean),
        )
        for part in (said, getattr(processor, "video_processor", None)):
            if part is not None:
                part.image_mean, part.image_std = list(mean), list(std)


def trainable_part(args: ModelArguments, config: PreTrainedConfig, new_tokens: range = range(0)) -> TrainablePart:
    """What the flags train of a model, to which some tokens are new.

    Raises:
        UserError: they name a ViT layer, or an output layer, that the model does not have.
    """
    parts = family_of(config).parts
    try:
        vit_layers = unfrozen_layers(args.unfreeze_vit_layers, parts.tower_sizes(config).layers)
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
        parts.NAMES,
        new_tokens,
    )


def build_model(
    args: ModelArguments,
    dtype: torch.dtype,
    tokenizer: PreTrainedTokenizerBase | None = None,
    image_size_px: int | None = None,
    recomputation: Recomputation | None = None,
    modules: Iterable[str] = (),
    new_tokens: range = range(0),
    device: torch.device | None = None,
) -> tuple[torch.nn.Module, TrainablePart]:
    """The base with LoRA and with what controls need, for a tokenizer and a tile size, and what of it is trained.

    Args:
        device: where the weights are read to; under ZeRO-3 they go where DeepSpeed has each rank's share.
    """
    model = load_base(
        args.model_name_or_path,
        num_adapter_layers=args.num_adapter_layers,
        dtype=dtype,
        attn_implementation=args.attn_implementation,
        image_size_px=image_size_px,
        num_tokens=len(tokenizer) if tokenizer else None,
        image_token_id=_image_token_id(tokenizer, args) if tokenizer else None,
        modules=modules,
        device=device,
    )
    model.config.use_cache = False
    use_shared_prefix_attention(model)
    use_stochastic_depth(model, args.drop_path_rate)
    trained = trainable_part(args, model.config, new_tokens)
    wrapped: torch.nn.Module = model
    lora = trained.lora_config(model.config.text_config.model_type, args.lora_dropout, args.lora_alpha)
    if lora is not None:
        # ZeRO-3 wants one dtype, so LoRA's matrices stay in the model's.
        wrapped = get_peft_model(model, lora, autocast_adapter_dtype=False)
        sum_in_place(wrapped)
    if tokenizer and any(map(trained.trains_rows, dict(wrapped.named_parameters()))):
        logger.warning(
            "%d tokens are new to %s, such as %s: their rows of the embeddings and the output layer are trained, too",
            len(new_tokens),
            args.model_name_or_path,
            tokenizer.convert_ids_to_tokens(new_tokens.start),
        )
    trained.mark(wrapped)
    recompute(model, recomputation or Recomputation())
    return wrapped, trained


def _image_token_id(tokenizer: PreTrainedTokenizerBase, args: ModelArguments) -> int:
    name = family_in(resolve_folder(args.model_name_or_path)).data.IMAGE_TOKEN
    return tokenizer.convert_tokens_to_ids(name)


def check_answers(samples: Sequence[Sample]) -> None:
    """See to it that there is something to learn in each sample.

    Raises:
        UserError: one ends with a question; or an answer is empty: the first one's place, and how many there are.
    """
    if asked := next((s for s in samples if s.turns[-1].speaker != "gpt"), None):
        raise UserError(f"{asked.source}: sample {asked.id!r} ends with a question: expected a 'gpt' turn to learn")
    empty = [s for s in samples if any(turn.speaker == "gpt" and not turn.text.strip() for turn in s.turns)]
    if empty:
        more = f", and so have {len(empty) - 1} others ('check' names them all)" if len(empty) > 1 else ""
        raise UserError(
            f"{empty[0].source}: sample {empty[0].id!r} has an empty answer{more}: expected text to learn; write the "
            "answer, or drop the record"
        )


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
        return (caption_plainly(model, view, prompt, VALIDATION_TOKENS) for prompt in prompts)

    def score(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
        scores = score_captions(predictions, references, java=False).corpus()
        return {
            name.removesuffix(NO_JAVA_SUFFIX).removesuffix(CHARACTERS_SUFFIX): value for name, value in scores.items()
        }

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


def read_training_data(
    data_args: DataArguments,
    args: FinetuneArguments,
    tokenizer: PreTrainedTokenizerBase,
    prompt_config: PromptConfig,
    tower: Callable[[], Sequence[float]] | None = None,
) -> tuple[list[Sample], CaptionDataset, Validation | None]:
    """The samples to train on, the passes that they make, and what is held out of them where a run evaluates.

    Args:
        tower: tells the model's tower from others, see `SampleEncoder`.
    Raises:
        UserError: the data cannot be used, or an evaluation has nothing to hold out.
    """
    samples = read_mix(load_meta(Path(data_args.meta_path)))
    check_answers(samples)
    cache = None
    if data_args.frame_cache:
        cache = FrameCache(Path(data_args.frame_cache), int(data_args.frame_cache_gb * 1e9))
    encoder = SampleEncoder(tokenizer, prompt_config, data_args.video_backend, cache, tower)
    validation = None
    if args.eval_strategy != "no":
        if data_args.eval_videos < 1:
            raise UserError(f"--eval_strategy {args.eval_strategy} needs --eval_videos, the number to hold out")
        samples, held_out = hold_out(samples, data_args.eval_videos, args.seed)
        validation = validation_of(held_out, encoder, prompt_config.max_num_frame)
    dataset = CaptionDataset(
        samples,
        encoder,
        min_num_frame=prompt_config.min_num_frame,
        max_num_frame=prompt_config.max_num_frame,
        sampling_method=data_args.sampling_method,
        seed=args.seed if args.data_seed is None else args.data_seed,
        captions_per_pass=data_args.captions_per_pass or None,
        loss_reduction=data_args.loss_reduction,
    )
    return samples, dataset, validation
