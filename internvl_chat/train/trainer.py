"""HF's Trainer with our sampler and our checkpoint format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import Trainer

from internvl_chat.data.dataset import CaptionDataset, EpochSampler
from internvl_chat.data.encoder import PromptConfig
from internvl_chat.model.checkpoint import load_trained, save_trained
from internvl_chat.model.trainable import TrainablePart


class BoxCaptionTrainer(Trainer):
    """Trains what `trained` names and saves just that."""

    def __init__(self, *args: Any, trained: TrainablePart, prompt_config: PromptConfig, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trained = trained
        self.prompt_config = prompt_config

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        dataset = train_dataset or self.train_dataset
        assert isinstance(dataset, CaptionDataset)
        args = self.args
        step_size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return EpochSampler(dataset, dataset.seed, step_size if args.group_by_length else None)

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, torch.Tensor] | None = None) -> None:
        """Called on every rank; under ZeRO-3 `state_dict` holds the gathered parameters that require a gradient."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        tensors = self.model.state_dict() if state_dict is None else state_dict
        save_trained(self.model, {k: v for k, v in tensors.items() if k in self.trained}, folder)
        self.prompt_config.save(folder)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained(model or self.model, Path(resume_from_checkpoint))
