"""The training script's flags and what they become."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from transformers.trainer_utils import rotate_checkpoints

from internvl_chat.contracts import Sample, Turn, UserError
from internvl_chat.data.controls.base import control_kinds
from internvl_chat.data.prompts.prompt_config import PromptConfig, PromptSettings
from internvl_chat.files import write_json
from internvl_chat.model.checkpoint import COMPLETION_MARK_NAME, FILE_LIST_NAME, file_sizes, list_files
from internvl_chat.model.memory.recomputation import Recomputation
from internvl_chat.train.arguments import FinetuneArguments, ModelArguments, RunArguments
from internvl_chat.train.finetune_w_bboxes_ml import parse_arguments, trains_with_deepspeed
from internvl_chat.train.resume import (
    check_ranks,
    check_same_settings,
    checkpoint_to_resume,
    engine_of,
    note_replaced_checkpoints,
)
from internvl_chat.train.validation import Validation, hold_out
from internvl_chat.train.workload import (
    ShownAmounts,
    offloads,
    recomputation_asked_for,
    text_tokens,
    workload_of,
    zero_stage,
)
from tests.helpers import ROOT


def test_no_flag_is_declared_twice() -> None:
    names = [field.name for kind in RunArguments.kinds() for field in fields(kind) if field.init]
    assert len(names) > 150 and [name for name, count in Counter(names).items() if count > 1] == []


def test_what_is_saved_with_a_checkpoint_are_the_flags_of_the_prompt_and_of_the_controls() -> None:
    run = parse_arguments("--model_name_or_path b --meta_path m --output_dir o --crop_frames 3 --pad2square".split())
    saved = run.prompt_config(16).flags()
    owned = {field.name for kind in (PromptSettings, *control_kinds()) for field in fields(kind)}
    assert saved.keys() == {*owned, "tokens_per_frame"}
    assert (saved["crop_frames"], saved["pad2square"], saved["tokens_per_frame"]) == (3, True, 16)


def run_of(folder: Path, flags: str) -> RunArguments:
    return parse_arguments(f"--model_name_or_path b --meta_path m --output_dir {folder} {flags}".split())


def arguments(folder: Path, **given: object) -> FinetuneArguments:
    return FinetuneArguments(output_dir=str(folder), report_to="none", **given)  # type: ignore[arg-type]


def test_evaluation_comes_with_the_checkpoints_unless_asked_otherwise(tmp_path: Path) -> None:
    assert arguments(tmp_path, eval_strategy="steps", save_steps=70, logging_steps=1).eval_steps == 70
    assert arguments(tmp_path, eval_strategy="steps", save_steps=70, eval_steps=9).eval_steps == 9


def test_warmup_steps_win_over_the_scripts_ratio(tmp_path: Path) -> None:
    assert arguments(tmp_path, warmup_ratio=0.03).warmup_steps == 0.03
    assert arguments(tmp_path, warmup_ratio=0.03, warmup_steps=12).warmup_steps == 12


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"early_stopping_patience": 3}, "needs --eval_strategy"),
        ({"dataloader_persistent_workers": True, "dataloader_num_workers": 1}, "--dataloader_persistent_workers"),
        ({"warmup_ratio": 1.5}, "expected 0 to 1"),
        ({"label_smoothing_factor": 0.2}, "--label_smoothing_factor 0.2 is not supported: packed rows"),
        ({"dataloader_drop_last": True}, "--dataloader_drop_last True is not supported: every pass"),
        ({"average_tokens_across_devices": False}, "--average_tokens_across_devices False is not supported: the loss"),
        ({"train_sampling_strategy": "group_by_length"}, "of similar length in a step with --group_by_length True"),
    ],
)
def test_flags_that_cannot_work_are_refused(given: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        arguments(tmp_path, **given)


def test_bfloat16_weights_need_float32_copies(tmp_path: Path) -> None:
    arguments(tmp_path).check_masters()
    with pytest.raises(UserError, match="--bf16 True without --deepspeed"):
        arguments(tmp_path, bf16=True).check_masters()


@pytest.mark.parametrize("flag", ["use_llm_lora", "use_backbone_lora"])
def test_a_rank_below_nothing_is_refused(flag: str) -> None:
    with pytest.raises(UserError, match=f"--{flag} -4: expected a rank"):
        ModelArguments("base", **{flag: -4})


SETTINGS = {"model_name_or_path": "base", "meta_path": "m.json", "num_adapter_layers": 3, "report_to": "none"}


def test_settings_come_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({**SETTINGS, "output_dir": str(tmp_path / "out")}))
    run = parse_arguments([str(path)])
    assert (run.model.num_adapter_layers, run.data.meta_path) == (3, "m.json")
    assert not trains_with_deepspeed([str(path)])
    path.write_text(json.dumps({**SETTINGS, "deepspeed": "zero.json"}))
    assert trains_with_deepspeed([str(path)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        (json.dumps({**SETTINGS, "num_adapter_layer": 3}), "settings.json: .*num_adapter_layer"),
        (json.dumps({"meta_path": "m.json"}), "settings.json: .*model_name_or_path"),
        (json.dumps({**SETTINGS, "use_llm_lora": -1}), "--use_llm_lora -1"),
    ],
)
def test_a_settings_file_that_is_wrong_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(UserError, match=message):
        parse_arguments([str(tmp_path / "settings.json")])


def test_a_dry_run_needs_no_ranks() -> None:
    assert trains_with_deepspeed(["--deepspeed", "zero.json", "--bf16", "True"])
    assert trains_with_deepspeed(["--deepspeed=zero.json"])
    assert not trains_with_deepspeed(["--deepspeed", "zero.json", "--dry_run", "4"])
    assert not trains_with_deepspeed(["--bf16", "True"])


ANSWER = "<ref>cat</ref><box>[[12, 345, 678, 910], [1, 2, 3, 4]]</box>"


def test_tokens_of_boxes_are_counted_by_the_digit() -> None:
    assert text_tokens("a small dog runs across the wide lawn") == round(8 * 1.4)
    # Four tags, fifteen digits, thirteen marks and a word.
    assert text_tokens(ANSWER) == 4 + 15 + 13 + 1


def test_tiles_are_those_that_the_flags_allow(tmp_path: Path) -> None:
    video = Sample("v", (Turn("human", "?"), Turn("gpt", "a dog")), "v", video_path=Path("v.mp4"))
    image = replace(video, video_path=None, image_paths=(Path("a.png"),))
    pair = replace(image, image_paths=(Path("a.png"), Path("b.png")))
    flags = {"min_num_frame": 2, "max_num_frame": 9, "max_dynamic_patch": 12, "use_thumbnail": True}
    whole = ShownAmounts.of(PromptConfig.of("internvl2_5", 28, 3, **flags))
    cut = ShownAmounts.of(PromptConfig.of("internvl2_5", 28, 3, **flags, dynamic_image_size=True, crop_frames=3))
    assert [whole.tiles(s) for s in (video, image, pair)] == [(2, 9), (1, 1), (2, 2)]
    assert [cut.tiles(s) for s in (video, image, pair)] == [(5, 12), (1, 13), (2, 14)]
    mixed = workload_of([[video], [image], [pair]], shown=cut, epochs=1, batch_size=1)
    assert (mixed.min_frames, mixed.max_frames) == (1, 14)


@pytest.mark.parametrize(
    ("flag", "again"),
    [
        ("True", Recomputation(28, tower=True)),
        ("False", Recomputation()),
        ("cheap", Recomputation(cheap=True)),
        ("auto", None),
        ("7", Recomputation(7, tower=True)),
        ("28", Recomputation(28, tower=True)),
    ],
)
def test_what_is_computed_again(flag: str, again: Recomputation | None) -> None:
    assert recomputation_asked_for(flag, 28) == again


def test_each_step_of_recomputation_saves_more() -> None:
    steps = list(Recomputation.steps(28))
    assert steps == sorted(set(steps)) and [step.llm_layers for step in steps] == [0, 0, 0, 7, 14, 21, 28]
    assert [step.as_text() for step in steps[:4]] == [
        "nothing computed again",
        "what is cheap in the LLM computed again",
        "what is cheap in the LLM and the ViT computed again",
        "7 LLM layers, what is cheap in the others, computed again",
    ]


@pytest.mark.parametrize("flag", ["29", "-1", "yes", "1.5"])
def test_an_impossible_number_of_layers_is_refused(flag: str) -> None:
    with pytest.raises(UserError, match=f"--grad_checkpoint {flag}: expected .* up to 28"):
        recomputation_asked_for(flag, 28)


def test_offloading_is_read_off_the_deepspeed_file() -> None:
    files = sorted((ROOT / "shell" / "deepspeed").glob("*.json"))
    assert {offloads(str(path)) for path in files} == {True, False}
    assert all(offloads(str(path)) == ("offload" in path.name) for path in files)
    assert not offloads(None) and zero_stage(None) == 0
    assert not offloads({"zero_optimization": {"stage": 3, "offload_param": {"device": "none"}}})


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "optimizer.pt").write_text("state")
    list_files(folder, [file_sizes(folder)])
    (folder / COMPLETION_MARK_NAME).write_text("{}")
    return folder


def test_a_run_that_started_anew_never_goes_on_from_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "out"
    old = checkpoint(out / "checkpoint-40")
    anew, go_on = (arguments(out, overwrite_output_dir=flag) for flag in (True, False))
    asked = arguments(out, resume_from_checkpoint="True")
    assert checkpoint_to_resume(go_on) == checkpoint_to_resume(asked) == old
    assert checkpoint_to_resume(anew) is None
    note_replaced_checkpoints(out)
    # As a copy does that keeps no times.
    shutil.copytree(out, tmp_path / "copy", copy_function=shutil.copyfile)
    assert checkpoint_to_resume(go_on) is None, "killed before it saved anything"
    assert checkpoint_to_resume(arguments(tmp_path / "copy")) is None
    with pytest.raises(UserError, match="--resume_from_checkpoint True: .* holds no complete checkpoint of this run"):
        checkpoint_to_resume(asked)
    new = checkpoint(out / "checkpoint-20")
    assert checkpoint_to_resume(go_on) == new


def test_a_finished_run_is_not_replaced_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    note_replaced_checkpoints(tmp_path)
    assert not caplog.records
    list_files(tmp_path, [file_sizes(tmp_path)])
    (tmp_path / COMPLETION_MARK_NAME).write_text("{}")
    note_replaced_checkpoints(tmp_path)
    assert f"{tmp_path} holds a finished run: this one starts anew and will replace it" in caplog.text


def test_the_last_step_is_gone_on_from_whatever_its_age(tmp_path: Path) -> None:
    for step in (90, 100, 8):
        checkpoint(tmp_path / f"checkpoint-{step}")
    assert checkpoint_to_resume(arguments(tmp_path)) == tmp_path / "checkpoint-100"


def test_resume_from_checkpoint_takes_words_and_paths(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="--resume_from_checkpoint True: .* holds no complete checkpoint"):
        checkpoint_to_resume(arguments(out, overwrite_output_dir=True, resume_from_checkpoint="True"))
    old = checkpoint(out / "checkpoint-40")
    elsewhere = checkpoint(tmp_path / "elsewhere" / "c-1")
    for word, overwrite, found in (("True", True, old), ("False", True, None), (str(elsewhere), True, elsewhere)):
        args = arguments(out, overwrite_output_dir=overwrite, resume_from_checkpoint=word)
        assert checkpoint_to_resume(args) == found
    (elsewhere / "optimizer.pt").unlink()
    with pytest.raises(UserError, match=r"--resume_from_checkpoint .*c-1: a complete checkpoint was expected"):
        checkpoint_to_resume(arguments(out, resume_from_checkpoint=str(elsewhere)))


def test_a_run_goes_on_with_the_parts_that_it_trained(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint-3")
    full, lora, scaled = (run_of(tmp_path, f"--use_llm_lora {flags}") for flags in ("0", "16", "16 --lora_alpha 64"))
    check_same_settings(folder, lora)
    write_json(tmp_path / "run.json", {"model": {**asdict(full.model), "attn_implementation": "eager"}})
    check_same_settings(folder, full)
    with pytest.raises(UserError, match="checkpoint-3: was trained with --use_llm_lora 0, and this run has 16"):
        check_same_settings(folder, lora)
    write_json(tmp_path / "run.json", {"model": asdict(lora.model)})
    with pytest.raises(UserError, match="was trained with --lora_alpha 0, .* scaled, and this run has 64"):
        check_same_settings(folder, scaled)
    check_same_settings(folder, run_of(tmp_path, "--use_llm_lora 16 --lora_alpha 32"))


def test_a_run_goes_on_with_its_optimizer_and_under_its_engine(tmp_path: Path) -> None:
    """What a checkpoint keeps of them is read back whatever the flags say, or cannot be read."""
    folder, same = checkpoint(tmp_path / "checkpoint-3"), run_of(tmp_path, "")
    said = same.training.to_sanitized_dict()
    write_json(tmp_path / "run.json", {"training": said, "engine": engine_of(same.training)})
    check_same_settings(folder, same)
    for flags, message in (
        ("--learning_rate 0.5", "was trained with --learning_rate 5e-05, and this run has 0.5"),
        ("--weight_decay 0.1", "--weight_decay 0.0, and this run has 0.1"),
        ("--optim sgd", "--optim adamw_torch.*, and this run has sgd"),
    ):
        with pytest.raises(UserError, match=message):
            check_same_settings(folder, run_of(tmp_path, flags))
    zero2 = run_of(tmp_path, "")
    zero2.training.deepspeed, zero2.training.bf16 = str(ROOT / "shell/deepspeed/zero_stage2_config.json"), True
    under = (
        "under no DeepSpeed in float32, and this run has DeepSpeed's ZeRO-2 in bfloat16: its optimizer cannot be read"
    )
    with pytest.raises(UserError, match=under):
        check_same_settings(folder, zero2)


def test_checkpoints_of_another_way_are_not_gone_on_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run that went back to step 4, and is killed behind its own step 6, goes on from there and not from step 8."""
    out = tmp_path / "out"
    for step in (2, 4, 6, 8):
        checkpoint(out / f"checkpoint-{step}")
    note_replaced_checkpoints(out, out / "checkpoint-4")
    assert "holds checkpoint-6, checkpoint-8, and this run goes on from" in caplog.text
    assert checkpoint_to_resume(arguments(out)) == out / "checkpoint-4"
    shutil.rmtree(out / "checkpoint-6")
    mine = checkpoint(out / "checkpoint-6")
    assert checkpoint_to_resume(arguments(out)) == mine
    # The trainer deletes by age, where files have one, and the abandoned way is the oldest.
    rotate_checkpoints(str(out), save_total_limit=3, use_mtime=True)
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    (tmp_path / "link").symlink_to(tmp_path)
    note_replaced_checkpoints(tmp_path / "link" / "out", out / "checkpoint-6")
    assert checkpoint_to_resume(arguments(out)) == mine, "the same folder by another way"
    note_replaced_checkpoints(out, checkpoint(tmp_path / "elsewhere" / "checkpoint-1"))
    assert checkpoint_to_resume(arguments(out)) is None


def test_another_number_of_ranks_is_refused_or_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = checkpoint(tmp_path / "checkpoint-3")
    check_ranks(folder, 1, universal=False)
    for rank in range(3):
        (folder / f"rng_state_{rank}.pth").touch()
    check_ranks(folder, 3, universal=False)
    assert not caplog.text
    with pytest.raises(UserError, match="written by 3 ranks, and this run has 2: .*--universal True"):
        check_ranks(folder, 2, universal=False)
    check_ranks(folder, 2, universal=True)
    assert "the moments of the optimizer begin anew" in caplog.text


def test_weights_alone_are_nothing_to_go_on_from(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint-3")
    (folder / FILE_LIST_NAME).unlink()
    with pytest.raises(UserError, match=r"holds files \(checkpoint-3, ...\) but no checkpoint to go on from"):
        checkpoint_to_resume(arguments(tmp_path))


def test_only_videos_are_held_out() -> None:
    videos = [Sample(str(n), (), f"v.jsonl:{n}", video_path=Path(f"{n // 2}.mp4")) for n in range(6)]
    others = [Sample(str(n), (), f"t.jsonl:{n}") for n in range(9)]
    for seed in range(8):
        train, held_out = hold_out([*others, *videos], 2, seed)
        assert len(held_out) == 4 and all(sample.video_path for sample in held_out)
        assert len(train) == 11
    with pytest.raises(UserError, match="the data has 3 videos"):
        hold_out([*others, *videos], 3, 0)


def test_references_of_equal_ids_are_told_apart() -> None:
    groups = [[Sample("0", (Turn("human", "?"), Turn("gpt", text)), f"{text}.jsonl:1")] for text in ("a", "b")]
    validation = Validation.of(groups, lambda model, samples: [], lambda said, truth: {})
    assert validation.references == {"a.jsonl:1": ["a"], "b.jsonl:1": ["b"]}
    assert [sample.id for sample in validation.samples] == ["a.jsonl:1", "b.jsonl:1"]
