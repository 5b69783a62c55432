"""The planner asked about a run on a GPU that is too small for it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from internvl_chat.contracts import Sample, Turn, UserError
from internvl_chat.model.loading import load_config
from internvl_chat.model.memory.recomputation import Recomputation
from internvl_chat.planning.plan import AUTOCAST, HALF_PRECISION, PLAIN, SINGLE_PRECISION, Storage, plan_run
from internvl_chat.train import workload
from internvl_chat.train.arguments import FinetuneArguments
from internvl_chat.train.build import trainable_part
from internvl_chat.train.finetune_w_bboxes_ml import parse_arguments
from internvl_chat.train.workload import settle_recomputation
from tests.train.conftest import BASE_MODEL, REPOSITORY


@pytest.mark.parametrize(("flag", "layers"), [("False", 0), ("1", 1), ("auto", None)])
def test_an_estimate_refuses_what_it_chooses_itself_and_warns_of_what_was_asked_for(
    flag: str, layers: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = f"--model_name_or_path {BASE_MODEL} --meta_path m --output_dir {tmp_path} --grad_checkpoint {flag}"
    run = parse_arguments(given.split())
    config = load_config(BASE_MODEL)
    sample = Sample("a", (Turn("human", "<video>"), Turn("gpt", "A disc.")), "here:1", video_path=tmp_path)
    asked = (run, run.prompt_config(25), config, trainable_part(run.model, config), [[sample]])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(workload, "memory_bytes", lambda: 1)
    monkeypatch.setattr(workload, "gpu_kind", lambda: None)
    if layers is None:
        with pytest.raises(UserError, match="the run does not fit"):
            settle_recomputation(*asked)
        return
    with caplog.at_level(logging.WARNING):
        assert settle_recomputation(*asked) == Recomputation.of_layers(layers)
    assert "the run does not fit" in caplog.text and f"--grad_checkpoint {flag} was asked for" in caplog.text


def test_weights_in_float32_are_planned_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision under DeepSpeed, and what trains without it: weights and activations of twice the bytes."""
    given = f"--model_name_or_path {BASE_MODEL} --meta_path m --output_dir {tmp_path} --grad_checkpoint auto"
    planned = []

    def noting(*args: Any, storage: Storage, **kwargs: Any) -> Any:
        planned.append((storage, args[-1].zero_stage))
        return plan_run(*args, storage=storage, **kwargs)

    monkeypatch.setattr(workload, "plan_run", noting)
    sample = Sample("a", (Turn("human", "<video>"), Turn("gpt", "A disc.")), "here:1", video_path=tmp_path)
    config = load_config(BASE_MODEL)
    for stage, bf16, fp16 in ((2, True, False), (1, False, False), (None, False, False), (None, False, True)):
        run = parse_arguments(given.split())
        run.training.bf16, run.training.fp16 = bf16, fp16
        run.training.deepspeed = str(REPOSITORY / f"shell/deepspeed/zero_stage{stage}_config.json") if stage else None
        settle_recomputation(run, run.prompt_config(25), config, trainable_part(run.model, config), [[sample]])
    assert planned == [(HALF_PRECISION, 2), (SINGLE_PRECISION, 1), (PLAIN, 0), (AUTOCAST, 0)]


@pytest.mark.parametrize(
    ("settings", "named"), [("zero_stage3_config.json", True), ("shell/deepspeed/zero_stage1_config.json", False)]
)
def test_a_stage_that_sends_less_is_named_where_it_fits(
    settings: str, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = f"--model_name_or_path {BASE_MODEL} --meta_path m --output_dir {tmp_path} --grad_checkpoint auto"
    run = parse_arguments(given.split())
    run.training.deepspeed = str(REPOSITORY / settings)
    config = load_config(BASE_MODEL)
    sample = Sample("a", (Turn("human", "<video>"), Turn("gpt", "A disc.")), "here:1", video_path=tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(FinetuneArguments, "world_size", 4)
    monkeypatch.setattr(workload, "memory_bytes", lambda: 80 * 2**30)
    monkeypatch.setattr(workload, "gpu_kind", lambda: None)
    with caplog.at_level(logging.INFO):
        settle_recomputation(run, run.prompt_config(25), config, trainable_part(run.model, config), [[sample]])
    assert ("--deepspeed shell/deepspeed/zero_stage1_config.json" in caplog.text) == named
