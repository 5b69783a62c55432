"""The training set: which samples share a pass, which frames they show, and in which order they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from internvl_chat.contracts import PackedFeatures, Sample, SharedPrefix, SkippedPass, UserError
from internvl_chat.data.media.sampling import FrameSampling
from internvl_chat.data.prompts.encoder import SampleEncoder, SamplePlan
from internvl_chat.data.records.record_questions import group_by_prompt
from internvl_chat.data.training_set.packing import LossReduction, pack_answers, plan_packs

# Longer than any text: a sample's length is measured before it is held against the limit.
_NO_LIMIT = 2**62
# Fills up the last pass of all ranks; there is nothing in it to learn.
NO_PASS = -1


@dataclass(frozen=True)
class PassSize:
    """What a pass over one prompt costs: tokens of the language model, answers included, and tiles of the ViT."""

    tokens: int
    tiles: int


class CaptionDataset(Dataset[PackedFeatures | SkippedPass | None]):
    """Passes over prompts, each with up to `captions_per_pass` of its answers (None: all of them).

    Which frames a pass shows depends on the seed, the epoch and the pass alone. A pass that cannot be read is told so,
    never replaced by another.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        encoder: SampleEncoder,
        *,
        min_num_frame: int,
        max_num_frame: int,
        sampling_method: FrameSampling = "rand",
        seed: int = 0,
        captions_per_pass: int | None = None,
        loss_reduction: LossReduction = "token",
    ) -> None:
        if not 1 <= min_num_frame <= max_num_frame:
            raise UserError(
                f"--min_num_frame {min_num_frame} and --max_num_frame {max_num_frame}: expected 1 <= min <= max"
            )
        if captions_per_pass is not None and captions_per_pass < 1:
            raise UserError(f"--captions_per_pass {captions_per_pass}: expected 1 or more")
        self.passes = group_by_prompt(samples, captions_per_pass)
        self.encoder = encoder
        self.num_frames_range = (min_num_frame, max_num_frame)
        self.sampling_method: FrameSampling = sampling_method
        self.seed = seed
        self.loss_reduction: LossReduction = loss_reduction
        self.epoch = 0
        self._later_tokens: dict[int, int] = {}

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.passes)

    def choose_frames(self, index: int, epoch: int) -> np.ndarray:
        """The frame numbers [F] that a pass shows in an epoch."""
        rng = np.random.default_rng([self.seed, epoch, index])
        num_frames = int(rng.integers(*self.num_frames_range, endpoint=True))
        return self.encoder.choose_frames(self.passes[index][0], num_frames, self.sampling_method, rng)

    def sizes(self, epoch: int) -> list[PassSize]:
        """The exact size of each pass in an epoch, nothing for one that cannot be read; no frame is decoded."""
        # Pictures are counted apart: their tokens, most of a prompt, need not be written out to be counted.
        config = replace(self.encoder.config, tokens_per_frame=0, max_seq_length=_NO_LIMIT)
        text_only = SampleEncoder(self.encoder.tokenizer, config)
        one_a_picture = SampleEncoder(self.encoder.tokenizer, replace(config, tokens_per_frame=1))
        # By how many tiles of what: of most families a tile's tokens each, of others once for a whole video.
        shown: dict[tuple[bool, int], int] = {}

        def size(index: int) -> PassSize:
            try:
                frames = self.choose_frames(index, epoch)
                plan = text_only.plan(self.passes[index][0], frames)
                tokens = self._layout([plan]).length + self._tokens_of_later_answers(index, text_only, frames)
            except UserError:
                return PassSize(0, 0)
            tiles, sample = len(plan.boxes), self.passes[index][0]
            kind = (sample.video_path is None, tiles)
            if kind not in shown:
                shown[kind] = len(one_a_picture.plan(sample, frames).input_ids) - len(plan.input_ids)
            return PassSize(tokens + shown[kind] * self.encoder.config.tokens_per_frame, tiles)

        return [size(index) for index in range(len(self))]

    def _tokens_of_later_answers(self, index: int, encoder: SampleEncoder, frames: np.ndarray) -> int:
        """Of a pass's answers but the first.

        A single answer's length is the same whatever is shown before it: counted once, on a prompt with one frame.
        """
        samples = self.passes[index]
        if len(samples) == 1:
            return 0
        if index in self._later_tokens:
            return self._later_tokens[index]
        is_constant = samples[0].video_path is not None and len(samples[0].turns) == 2
        plans = [encoder.plan(sample, frames[:1] if is_constant else frames) for sample in samples]
        tokens = sum(self._layout(plans).answer_lengths[1:])
        if is_constant:
            self._later_tokens[index] = tokens
        return tokens

    def _layout(self, plans: Sequence[SamplePlan]) -> SharedPrefix:
        return pack_answers(plans, {}, self.loss_reduction)["layout"][0]

    def __getitem__(self, index: int) -> PackedFeatures | SkippedPass | None:
        if index == NO_PASS:
            return None
        try:
            return self.load(index)
        except UserError as error:
            return SkippedPass(index, str(error))

    def load(self, index: int) -> PackedFeatures:
        """Read a pass, in the current epoch.

        Raises:
            UserError: a file cannot be used, or a sample has more than `max_seq_length` tokens.
        """
        samples = self.passes[index]
        frames = self.choose_frames(index, self.epoch)
        rng = np.random.default_rng([self.seed, self.epoch, index, 1])
        plans = [self.encoder.plan(sample, frames, rng) for sample in samples]
        return pack_answers(plans, self.encoder.pixels(samples[0], plans[0]), self.loss_reduction)


def _generator(dataset: CaptionDataset, epoch: int) -> torch.Generator:
    entropy = np.random.SeedSequence([dataset.seed, epoch]).generate_state(1)
    return torch.Generator().manual_seed(int(entropy[0]))


class EpochSampler(Sampler[int]):
    """Order of the passes in an epoch; it depends on the seed and the epoch alone, so a resumed run repeats it.

    Args:
        group_size: passes of one optimizer step; with it, they have similar lengths. None shuffles freely.
        together: passes that all ranks take at a time; an epoch is filled up to a multiple of it with `NO_PASS`, where
            the loader would take passes a second time.
    """

    def __init__(self, dataset: CaptionDataset, group_size: int | None = None, together: int = 1) -> None:
        self.dataset = dataset
        self.group_size = group_size
        self.num_filled = -len(dataset) % together

    def set_epoch(self, epoch: int) -> None:
        self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.dataset) + self.num_filled

    def __iter__(self) -> Iterator[int]:
        return iter([*self._order(), *[NO_PASS] * self.num_filled])

    def _order(self) -> list[int]:
        epoch = self.dataset.epoch
        generator = _generator(self.dataset, epoch)
        if self.group_size is None:
            order: list[int] = torch.randperm(len(self.dataset), generator=generator).tolist()
            return order
        lengths = [size.tokens for size in self.dataset.sizes(epoch)]
        return list(get_length_grouped_indices(lengths, self.group_size, generator=generator))


class PackSampler(Sampler[list[int]]):
    """Packs of passes up to a token budget; every epoch has the same number, so that the schedule is known.

    Args:
        max_tokens: most tokens of a pack; a longer pass has a pack for itself.
        step_packs: packs of one optimizer step on all ranks.
        num_epochs: epochs that will be trained; their packs are planned at once.
        tile_cost: what a ViT tile costs, in tokens of the language model.
    Raises:
        UserError: there are fewer passes than packs of one step.
    """

    def __init__(
        self, dataset: CaptionDataset, max_tokens: int, step_packs: int, num_epochs: int, tile_cost: float
    ) -> None:
        if len(dataset) < step_packs:
            raise UserError(
                f"{len(dataset)} prompts cannot fill the {step_packs} packs of an optimizer step: lower BATCH_SIZE "
                "(gradient accumulation) or the number of processes"
            )
        self.dataset = dataset
        # accelerate hands the epoch to a batch sampler's sampler.
        self.sampler = EpochSampler(dataset)
        self.epochs = self._plan(max_tokens, step_packs, num_epochs, tile_cost)

    def _plan(self, max_tokens: int, step_packs: int, num_epochs: int, tile_cost: float) -> list[list[list[int]]]:
        sizes = [self.dataset.sizes(epoch) for epoch in range(num_epochs)]
        orders = [
            torch.randperm(len(self.dataset), generator=_generator(self.dataset, epoch)).tolist()
            for epoch in range(num_epochs)
        ]
        most_tokens = max(sum(min(size.tokens, max_tokens) for size in of_epoch) for of_epoch in sizes)
        num_packs = -(-most_tokens // (max_tokens * step_packs)) * step_packs
        while num_packs <= len(self.dataset):
            planned = []
            for of_epoch, order in zip(sizes, orders, strict=True):
                tokens = [size.tokens for size in of_epoch]
                costs = [size.tokens + tile_cost * size.tiles for size in of_epoch]
                packs = plan_packs(tokens, costs, order, num_packs, max_tokens, step_packs)
                if packs is None:
                    break
                planned.append(packs)
            else:
                return planned
            num_packs += step_packs
        raise UserError(
            f"--max_packed_tokens {max_tokens}: {len(self.dataset)} prompts of up to "
            f"{max(size.tokens for size in sizes[0])} tokens do not fill whole optimizer steps of {step_packs} packs; "
            "lower BATCH_SIZE, or leave packing off"
        )

    def __len__(self) -> int:
        return len(self.epochs[0])

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.epochs[self.dataset.epoch])
