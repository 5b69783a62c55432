"""HF's Trainer with our order of the data, our loss normalisation and our checkpoint format."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from internvl_chat.data.prompts.encoder import PromptConfig
from internvl_chat.data.training_set.dataset import CaptionDataset, EpochSampler, PackSampler
from internvl_chat.families import family_of_style
from internvl_chat.model.checkpoint import (
    COMPLETION_MARK_NAME,
    file_sizes,
    list_files,
    load_trained,
    load_trained_anywhere,
    save_trained,
)
from internvl_chat.model.trainable import TrainablePart
from internvl_chat.planning.footprint import Footprint
from internvl_chat.processes import keep_inherited
from internvl_chat.train.agreement import found_by_ranks
from internvl_chat.train.fault_log import FaultLog
from internvl_chat.train.resume import RememberFaults, ranks_of
from internvl_chat.train.sanity import ExactPositions, check_first_loss, check_loss, check_weights
from internvl_chat.train.throughput import Throughput
from internvl_chat.train.validation import Validation
from internvl_chat.train.workload import peak_flops, tile_cost, zero_stage

logger = logging.getLogger("internvl_chat.train")


class BoxCaptionTrainer(Trainer):
    """Trains what `trained` names and saves just that.

    Args:
        max_packed_tokens: fill passes into packs of this many tokens; 0 takes `per_device_train_batch_size` of them.
        footprint: what a pass costs; the log has FLOPs by it, and packs are balanced by it.
        validation: what an evaluation asks and how it scores the answers.
        max_bad_fraction: share of the samples that may be unreadable before the run stops.
    """

    def __init__(
        self,
        *args: Any,
        trained: TrainablePart,
        prompt_config: PromptConfig,
        max_packed_tokens: int = 0,
        footprint: Footprint | None = None,
        validation: Validation | None = None,
        max_bad_fraction: float = 0.001,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, eval_dataset=validation.samples if validation else None, **kwargs)
        self.validation = validation
        self.trained = trained
        self.prompt_config = prompt_config
        self.max_packed_tokens = max_packed_tokens
        self.tile_cost = tile_cost(footprint) if footprint else 0.0
        num_tiles = family_of_style(prompt_config.conv_style).data.num_tiles
        self.throughput = Throughput(num_tiles, footprint, peak_flops())
        answers = list(map(len, self.train_dataset.passes))
        self.faults = FaultLog(sum(answers), max_bad_fraction, max(answers))
        self.add_callback(RememberFaults(self.faults))
        self.add_callback(ExactPositions())
        self._has_started = False

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        dataset = train_dataset or self.train_dataset
        assert isinstance(dataset, CaptionDataset)
        args = self.args
        together = args.train_batch_size * args.world_size
        step_size = together * args.gradient_accumulation_steps
        return EpochSampler(dataset, step_size if args.group_by_length else None, together)

    def get_train_dataloader(self) -> DataLoader:
        if not self.max_packed_tokens:
            return super().get_train_dataloader()
        args, dataset = self.args, self.train_dataset
        assert isinstance(dataset, CaptionDataset)
        step_packs = args.gradient_accumulation_steps * args.world_size
        num_epochs = math.ceil(args.num_train_epochs)
        if args.max_steps > 0:
            one_epoch = PackSampler(dataset, self.max_packed_tokens, step_packs, 1, self.tile_cost)
            num_epochs = math.ceil(args.max_steps * step_packs / len(one_epoch))
        sampler = PackSampler(dataset, self.max_packed_tokens, step_packs, num_epochs, self.tile_cost)
        loader = DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            worker_init_fn=keep_inherited,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )
        return self.accelerator.prepare(loader)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if not self._has_started:
            check_first_loss(self.accelerator.gather(loss.detach().float()[None]))
            self._has_started = True
        return loss

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """All but norms and biases, and tables of which a few rows are trained: decay would move the others."""
        return [name for name in super().get_decay_parameter_names(model) if not self.trained.trains_rows(name)]

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Under DeepSpeed numbers become bfloat16, but not the weights of tokens: the loss is divided by their sum."""
        weights = inputs["loss_weights"]
        prepared = super()._prepare_inputs(inputs)
        return {**prepared, "loss_weights": weights.to(self.args.device)}

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | int | None]:
        started = time.perf_counter()
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.throughput.count(batches, time.perf_counter() - started)
        return batches, num_items

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        """The weight of all that an optimizer step supervises, on all ranks: the summed loss is divided by it.

        Raises:
            UserError: too many samples cannot be read.
        """
        if not batch_samples:
            return None
        skipped = [one for batch in batch_samples for one in batch.pop("skipped")]
        weight = sum(float(batch["loss_weights"].sum()) for batch in batch_samples)
        totals = torch.tensor([weight, len(skipped)], dtype=torch.float64, device=device)
        if self.args.world_size > 1:
            totals = self.accelerator.gather(totals[None]).sum(0)
        weight, num_skipped = totals.tolist()
        if num_skipped:
            # Every rank hears of every fault, so that all of them stop where one would.
            for one in gather_object(skipped):
                for sample in self.train_dataset.passes[one.index]:
                    self.faults.skip(sample, one.reason)
        return torch.tensor(weight or 1.0, device=device)

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Caption the held-out videos and score the captions."""
        assert self.validation is not None
        scores = self.validation.run(self.model, self.accelerator)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        self.log(metrics)
        control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # type: ignore[has-type]
        self.control = control
        return metrics

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            # Where float16 overflows, the step is left out and its scale lowered.
            if not self.args.fp16:
                check_loss(logs["loss"], self.state.global_step, str(self.args.output_dir))
            totals = self.throughput.totals()[None].to(self.args.device)
            logs.update(self.throughput.rates(self.accelerator.gather(totals)))
        super().log(logs, *args, **kwargs)

    def check_weights(self) -> None:
        """See to it, on all ranks, that what was trained are numbers.

        Raises:
            UserError: they are not.
        """
        where = str(self.args.output_dir)
        found_by_ranks(lambda: check_weights(self.model, self.state.global_step, where))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Below ZeRO-3 every rank has all weights: the first one writes its own, and none copies the model before."""
        if self.is_deepspeed_enabled and zero_stage(self.args.deepspeed) < 3:
            self._save(output_dir)
        else:
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, torch.Tensor] | None = None) -> None:
        """Called on every rank; under ZeRO-3 `state_dict` holds the gathered parameters that require a gradient."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        (folder / COMPLETION_MARK_NAME).unlink(missing_ok=True)
        tensors = self.model.state_dict() if state_dict is None else state_dict
        save_trained(self.model, {k: v for k, v in tensors.items() if k in self.trained}, folder)
        self.prompt_config.save(folder)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def _run_epoch(self, **kwargs: Any) -> None:
        """No step more for a run that goes on from its own end, or from where it had stopped early."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            super()._run_epoch(**kwargs)

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: DataLoader, resume_from_checkpoint: str | None
    ) -> tuple[Any, DataLoader]:
        """Of what another number of ranks left under DeepSpeed, the weights and the schedule alone can be read."""
        is_cut_otherwise = resume_from_checkpoint and ranks_of(Path(resume_from_checkpoint)) != self.args.world_size
        if not (resume_from_checkpoint and is_cut_otherwise and self.is_deepspeed_enabled):
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        load_trained_anywhere(self.model, Path(resume_from_checkpoint))
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return prepared

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """A folder of the same step is another run's, or was cut off: nothing of it may be mixed with this one."""
        self.check_weights()
        folder = Path(self._get_output_dir(trial=None)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save and folder.is_dir():
            shutil.rmtree(folder)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(*args, **kwargs)

    def _save_rng_state(self, output_dir: str) -> None:
        """Wait until all that the ranks write is on disk: the first rank marks the checkpoint complete next.

        What is listed is what each rank sees of its own: the first one's view of a network folder may be late.
        """
        super()._save_rng_state(output_dir)
        folder = Path(output_dir)
        everyones = gather_object([file_sizes(folder)])
        if self.args.should_save:
            listed = list_files(folder, everyones)
            if unseen := sorted(listed.keys() - file_sizes(folder).keys()):
                logger.warning(
                    "%s: %d files of other ranks are not here yet, such as %s: the run cannot go on from it before "
                    "they are; is --output_dir shared by all nodes?",
                    folder,
                    len(unseen),
                    unseen[0],
                )

    def _load_best_model(self) -> None:
        if self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            assert self.state.best_model_checkpoint is not None
            load_trained(self.model, Path(self.state.best_model_checkpoint))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained(model or self.model, Path(resume_from_checkpoint))
