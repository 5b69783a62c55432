"""The training set and the order of its samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from internvl_chat.contracts import Features, Sample, UserError
from internvl_chat.data.encoder import SampleEncoder
from internvl_chat.data.frame_sampling import FrameSampling


class CaptionDataset(Dataset[Features]):
    """The training set. Which frames a sample shows depends on the seed, the epoch and the sample alone."""

    def __init__(
        self,
        samples: Sequence[Sample],
        encoder: SampleEncoder,
        *,
        min_num_frame: int,
        max_num_frame: int,
        sampling_method: FrameSampling = "rand",
        seed: int = 0,
    ) -> None:
        if not 1 <= min_num_frame <= max_num_frame:
            raise UserError(
                f"--min_num_frame {min_num_frame} and --max_num_frame {max_num_frame}: expected 1 <= min <= max"
            )
        self.samples = samples
        self.encoder = encoder
        self.num_frames_range = (min_num_frame, max_num_frame)
        self.sampling_method: FrameSampling = sampling_method
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.samples)

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.epoch, index])

    def _draw_num_frames(self, rng: np.random.Generator) -> int:
        return int(rng.integers(*self.num_frames_range, endpoint=True))

    def lengths(self) -> list[int]:
        """Each sample's number of frames in this epoch: what its length grows with, known without reading a file."""
        return [self._draw_num_frames(self._rng(index)) for index in range(len(self))]

    def __getitem__(self, index: int) -> Features:
        sample, rng = self.samples[index], self._rng(index)
        num_frames = self._draw_num_frames(rng)
        indices = self.encoder.choose_frames(sample, num_frames, self.sampling_method, rng)
        return self.encoder(sample, indices)


class EpochSampler(Sampler[int]):
    """Order of the samples in an epoch; it depends on the seed and the epoch alone, so a resumed run repeats it.

    Args:
        group_size: samples of one optimizer step; with it, they have similar lengths. None shuffles freely.
    """

    def __init__(self, dataset: CaptionDataset, seed: int, group_size: int | None = None) -> None:
        self.dataset = dataset
        self.seed = seed
        self.group_size = group_size

    def set_epoch(self, epoch: int) -> None:
        self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        entropy = np.random.SeedSequence([self.seed, self.dataset.epoch]).generate_state(1)
        generator = torch.Generator().manual_seed(int(entropy[0]))
        if self.group_size is None:
            return iter(torch.randperm(len(self), generator=generator).tolist())
        return iter(get_length_grouped_indices(self.dataset.lengths(), self.group_size, generator=generator))
