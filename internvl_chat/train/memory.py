"""What a run remembers beside its weights, so that it goes on as if it had never been killed.

transformers writes the state of callbacks to `trainer_state.json`; reading it back is done here, since its own way
would also bring back the settings of the run that was killed.
"""

from __future__ import annotations

from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from internvl_chat.data.faults import Fault, FaultLog


def remembered(state: TrainerState, callback: ExportableState) -> dict[str, Any]:
    """What a callback's `state` had under "attributes" when the checkpoint was written."""
    # A checkpoint of a run without the callback knows nothing of it, and transformers wants an entry to replace.
    saved = state.stateful_callbacks.setdefault(type(callback).__name__, callback.state())
    return saved["attributes"]


class EarlyStop(EarlyStoppingCallback):
    """Early stopping that counts on where a killed run had come to; one that had stopped stays so."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        self.early_stopping_patience_counter = remembered(state, self)["early_stopping_patience_counter"]
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class RememberFaults(TrainerCallback, ExportableState):
    """Keeps the samples that could not be used: they count towards `--max_bad_fraction` after a kill, too."""

    def __init__(self, log: FaultLog) -> None:
        self.log = log

    def state(self) -> dict[str, Any]:
        faults = [[fault.sample_id, fault.source, fault.reason] for fault in self.log.faults.values()]
        return {"args": {}, "attributes": {"faults": faults}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.log.remember(Fault(*words) for words in remembered(state, self)["faults"])
