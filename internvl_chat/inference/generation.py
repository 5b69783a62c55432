"""From prompts to candidates: each prompt is read once, and transformers' `generate` continues it.

Shape letters: A asks, R rows (asks times samples), T tokens of a caption, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from internvl_chat.contracts import Sample
from internvl_chat.data.prompts.encoder import SampleEncoder
from internvl_chat.data.prompts.tokenizer import answer_text
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.ensemble import Ensemble, EnsembleCache
from internvl_chat.inference.prefill import read_prompts
from internvl_chat.inference.requests import EncodedClip, Viewpoint
from internvl_chat.inference.rotary import RotaryLimit, apart
from internvl_chat.model.shared_prompt import CACHE_NAME, SharedPrompts
from internvl_chat.vision import moved

# Tokens that are summed in one go when one of them is drawn.
_BLOCK = 512
# So that rounding cannot lead behind the last token that has a share.
_BELOW_ONE = 1 - 1e-12


class SeededChoice(LogitsProcessor):
    """Draw each row's next token with random numbers of its own, so that a sample does not depend on its batch.

    Args:
        uniforms: [R, T] in 0 to 1; column t draws the token t.
    """

    def __init__(self, uniforms: torch.Tensor) -> None:
        self.uniforms = uniforms

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [R, V] that leave the drawn token alone."""
        # The prompt is one token, see `Ensemble`.
        uniforms = self.uniforms[:, input_ids.shape[1] - 1, None]
        tokens = _drawn(scores.float().softmax(-1), uniforms)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens, 0.0)


def _drawn(shares: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The token [R, 1] at which the running sum of `shares` [R, V] passes `uniforms` [R, 1] of the whole.

    In two steps, a block of tokens and then a token of it: running sums over a whole vocabulary cost more than a small
    model's forward pass.
    """
    blocks = nnf.pad(shares, (0, -shares.shape[1] % _BLOCK)).unflatten(1, (-1, _BLOCK))
    ends = blocks.sum(-1).double().cumsum(-1)
    aims = uniforms.clamp(max=_BELOW_ONE) * ends[:, -1:]
    block = torch.searchsorted(ends, aims, right=True)
    begin, end = nnf.pad(ends, (1, 0)).gather(1, block), ends.gather(1, block)
    inside = blocks.take_along_dim(block[:, :, None], dim=1).squeeze(1).double().cumsum(-1)
    within = ((aims - begin) / (end - begin)).clamp(max=_BELOW_ONE) * inside[:, -1:]
    return block * _BLOCK + torch.searchsorted(inside, within, right=True)


def uniforms_of(ask_id: str, sample: int, decoding: Decoding) -> np.ndarray:
    """Random numbers [T] for one sample of one ask: they follow from the seed, the ask and the sample's number."""
    entropy = int.from_bytes(hashlib.sha256(ask_id.encode()).digest()[:8], "big")
    return np.random.default_rng([decoding.seed, entropy, sample]).random(decoding.max_new_tokens)


def caption_ends(encoder: SampleEncoder) -> list[int]:
    """The tokens that end a caption: the chat's own end mark, whatever a base's generation settings say."""
    tokenizer = encoder.tokenizer
    marks = encoder.family.data.end_tokens(encoder.config)
    return sorted({*map(tokenizer.convert_tokens_to_ids, marks), tokenizer.eos_token_id} - {None})


@contextmanager
def settings_aside(model: PreTrainedModel) -> Iterator[None]:
    """Within it `generate` takes what it is given alone: a base's own penalties and limits would fill in the rest."""
    owners = [module for module in model.modules() if "generation_config" in vars(module)]
    own = [module.generation_config for module in owners]
    for module in owners:
        module.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for module, settings in zip(owners, own, strict=True):
            module.generation_config = settings


# Not in inference mode: weights that ZeRO-3 gathers here may still serve the next training step.
@torch.no_grad()
def caption_plainly(model: PreTrainedModel, view: Viewpoint, sample: Sample, max_new_tokens: int) -> str:
    """The greedy caption of one sample by the model's own `generate`, which leaves the model as it is.

    For a model that is being trained: under ZeRO-3 all ranks must call the same layers, whatever they are asked.

    Raises:
        UserError: a video or its boxes cannot be used.
    """
    plan = view.plan(sample)
    ids = torch.tensor([plan.input_ids], device=model.device)
    vision = moved({**view.encoder.pixels(sample, plan), **plan.tensors}, model.device, model.dtype)
    with settings_aside(model):
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            vision=vision,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=caption_ends(view.encoder),
            pad_token_id=view.encoder.tokenizer.pad_token_id,
        )
    return view.encoder.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()


@dataclass(frozen=True)
class Candidate:
    """One answer to an ask: its text, its tokens up to the one that ends it, and whether that one came."""

    text: str
    num_tokens: int
    is_whole: bool


# Called after every token with the ids of the asks and their rows [R, T] so far, as many for each; says of every ask
# whether nothing more of it is wanted.
Watch = Callable[[Sequence[str], torch.Tensor], Sequence[bool]]


class _Watched(StoppingCriteria):
    """Shows what is written to a watch, and ends the rows of asks of which it wants no more."""

    def __init__(self, ids: Sequence[str], watch: Watch) -> None:
        self.ids, self.watch = ids, watch
        self.unwanted = [False] * len(ids)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        # The prompt is one token, see `Ensemble`.
        self.unwanted = list(self.watch(self.ids, input_ids[:, 1:]))
        unwanted = torch.tensor(self.unwanted, device=input_ids.device)
        return unwanted.repeat_interleave(len(input_ids) // len(unwanted))


class Captioners:
    """Models that write captions in step, each from its own view of the asks.

    Args:
        views: which view each member is shown, by its number among those that clips are encoded in.
        end_ids: tokens that end a caption.
        keep_tags: leave the tags of boxes in the text.
    """

    def __init__(
        self,
        models: Ensemble,
        views: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Sequence[int],
        decoding: Decoding,
        keep_tags: bool = False,
    ) -> None:
        self.models, self.views, self.tokenizer = models, views, tokenizer
        self.end_ids, self.decoding, self.keep_tags = list(end_ids), decoding, keep_tags
        self.limits = [RotaryLimit.of(model.config) for model in models.members]

    def __call__(self, clips: Sequence[EncodedClip]) -> list[list[str]]:
        """The texts of the candidates of each ask of the clips, see `write`."""
        return [[candidate.text for candidate in candidates] for candidates in self.write(clips)]

    @torch.inference_mode()
    def write(self, clips: Sequence[EncodedClip], watch: Watch | None = None) -> list[list[Candidate]]:
        """The candidates of each ask of the clips, in order: the best beams first, then the samples.

        Args:
            watch: sees what is written, and may end an ask; its candidates then stop where they are.
        Raises:
            UserError: a prompt is longer than what a model attends to.
        """
        found: dict[str, list[Candidate]] = {}
        for together in apart(clips, self.limits, self.views, self.decoding.max_new_tokens):
            ids = [ask_id for clip in together for ask_id in clip.ids]
            found |= zip(ids, self._candidates(together, watch), strict=True)
        return [found[ask_id] for clip in clips for ask_id in clip.ids]

    def _candidates(self, clips: Sequence[EncodedClip], watch: Watch | None) -> list[list[Candidate]]:
        prompts = [
            read_prompts(model, [clip.views[view] for clip in clips], self.decoding.max_new_tokens)
            for model, view in zip(self.models.members, self.views, strict=True)
        ]
        last_ids = torch.tensor(
            [prompt.input_ids[-1:] for clip in clips for prompt in clip.views[self.views[-1]].prompts],
            device=self.models.device,
        )
        ids = [ask_id for clip in clips for ask_id in clip.ids]
        watched = None if watch is None else _Watched(ids, watch)
        candidates: list[list[Candidate]] = [[] for _ in ids]
        if self.decoding.num_best:
            found = self._generate(
                last_ids,
                prompts,
                watched,
                num_beams=self.decoding.num_beams,
                num_return_sequences=self.decoding.num_best,
            )
            self._hand_out(found, candidates, watched)
        if self.decoding.num_samples:
            times = self.decoding.num_samples
            drawn = self._generate(
                last_ids.repeat_interleave(times, dim=0),
                prompts,
                watched,
                logits_processor=self._sampling(ids),
            )
            self._hand_out(drawn, candidates, watched)
        return candidates

    def _sampling(self, ids: Sequence[str]) -> LogitsProcessorList:
        decoding = self.decoding
        rows = [uniforms_of(ask_id, n, decoding) for ask_id in ids for n in range(decoding.num_samples)]
        steps: list[LogitsProcessor] = [TemperatureLogitsWarper(decoding.temperature)]
        if decoding.top_p < 1:
            steps.append(TopPLogitsWarper(decoding.top_p))
        steps.append(SeededChoice(torch.from_numpy(np.stack(rows)).to(self.models.device)))
        return LogitsProcessorList(steps)

    def _generate(
        self,
        last_ids: torch.Tensor,
        prompts: Sequence[SharedPrompts],
        watched: _Watched | None,
        logits_processor: LogitsProcessorList | None = None,
        **settings: int,
    ) -> torch.Tensor:
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=self.decoding.max_new_tokens,
            eos_token_id=self.end_ids,
            pad_token_id=self.tokenizer.pad_token_id,
            **settings,
        )
        ids = self.models.generate(
            last_ids,
            attention_mask=torch.ones_like(last_ids),
            generation_config=config,
            logits_processor=logits_processor,
            stopping_criteria=StoppingCriteriaList([watched] if watched else []),
            **{CACHE_NAME: EnsembleCache(prompts)},
        )
        return ids[:, 1:]

    def texts(self, ids: torch.Tensor) -> list[str]:
        """What rows of tokens [R, T] say."""
        if self.keep_tags:
            return [answer_text(self.tokenizer, row) for row in ids.tolist()]
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def _hand_out(self, ids: torch.Tensor, candidates: Sequence[list[Candidate]], watched: _Watched | None) -> None:
        each = len(ids) // len(candidates)
        is_end = torch.isin(ids, torch.tensor(self.end_ids, device=ids.device))
        whole = is_end.any(1)
        lengths = torch.where(whole, is_end.int().argmax(1) + 1, ids.shape[1])
        if watched and any(watched.unwanted):
            # A row that was ended has no mark of its end, only what fills it up; others may hold that token inside.
            is_text = nnf.pad(ids != self.tokenizer.pad_token_id, (1, 0), value=True)
            ends = ids.shape[1] - is_text.flip(1).int().argmax(1)
            unwanted = torch.tensor(watched.unwanted, device=ids.device).repeat_interleave(each)
            lengths = torch.where(unwanted & ~whole, ends, lengths)
        written = map(Candidate, self.texts(ids), lengths.tolist(), whole.tolist())
        for mine in candidates:
            mine += islice(written, each)
