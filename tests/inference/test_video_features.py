"""Features of videos: made once, read in place of videos with the same answers, refused where they do not belong."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from internvl_chat.__main__ import main
from internvl_chat.contracts import UserError
from internvl_chat.data.media.array_pickles import read_array
from internvl_chat.data.media.video_features import read_features
from internvl_chat.files import write_json, write_jsonl
from internvl_chat.inference.answers import records_to_answer
from internvl_chat.inference.handle import ModelHandle, open_model
from internvl_chat.model.checkpoint import load_captioner
from internvl_chat.model.export import begin_base
from internvl_chat.model.loading import open_native
from internvl_chat.train.finetune_w_bboxes_ml import parse_arguments, train
from internvl_chat.vision import joined
from tests.artemis import write_llama, write_tower
from tests.data.clips import write_clip

NUM_PATCHES, TOWER_WIDTH = 4, 64
BOXES = {str(number): [5 + number, 5, 30 + number, 35] for number in range(7)}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    begin_base(write_llama(folder / "llama"), str(write_tower(folder / "clip")), folder / "start")
    return folder / "start"


@pytest.fixture(scope="module")
def root(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos, one that is none, and their features."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "in").mkdir()
    write_clip(folder / "in" / "a.mp4", 7)
    write_clip(folder / "b.mp4", 120)
    assert extract(folder, start, "--batch_frames", 5) == 0
    return folder


def extract(folder: Path, model: Path, *flags: object) -> int:
    argv = ["extract-features", folder, "--model", model, *flags]
    return main([str(word) for word in argv])


def shown(opened: ModelHandle, records: Path, *numbers: int) -> list[dict[str, torch.Tensor]]:
    samples = records_to_answer(records, records.parent)
    samples = [replace(samples[number], turns=samples[number].turns[:1]) for number in numbers]
    encoder = opened.encoder
    return [encoder(s, encoder.choose_frames(s, 100, "centre"))["vision"] for s in samples]


@pytest.fixture(scope="module")
def records(root: Path) -> Path:
    def record(number: int, **media: Any) -> dict[str, Any]:
        turns = [{"from": "human", "value": "<video>\nWhat happens?"}, {"from": "gpt", "value": "x"}]
        return {"id": number, **media, "conversations": turns}

    track = {"name": "dog", "boxes": BOXES, "unit": "pixels", "order": "xyxy"}
    write_jsonl(
        root / "val.jsonl",
        [
            record(0, video="in/a.mp4"),
            record(1, video="in/a.safetensors"),
            record(2, video="b.mp4", features="b.safetensors"),
            record(3, video="b.mp4"),
            record(4, video="in/a.mp4", features="in/a.safetensors", tracks=[track]),
        ],
    )
    return root / "val.jsonl"


def test_a_model_is_shown_the_same_by_features_and_by_frames_in_any_mix(start: Path, records: Path) -> None:
    opened = open_model(start)
    model: Any = load_captioner(start, dtype=torch.float32)
    visions = shown(opened, records, 0, 1, 2, 3)
    assert [len(vision["video_frames"]) for vision in visions] == [7, 0, 0, 100]
    with torch.no_grad():
        alone = [model.model.video_tokens(vision) for vision in visions]
        together = model.model.video_tokens(joined(visions))
    for frames, features in ((0, 1), (3, 2)):
        torch.testing.assert_close(alone[features], alone[frames], rtol=2e-3, atol=2e-3)
    assert (alone[0] - alone[3]).abs().max() > 0.05
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    (tracked,) = shown(opened, records, 4)
    assert len(tracked["video_frames"]) == 0 and tracked["video_features"].shape == (100 + NUM_PATCHES, TOWER_WIDTH)
    assert len(tracked["pixel_values"]) == 7 and tracked["pixel_values"].std() > 0.1


def test_features_of_what_a_video_was_before_are_not_kept(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(tmp_path / "a.mp4", 3)
    assert extract(tmp_path, start) == extract(tmp_path, start) == 0
    write_clip(tmp_path / "a.mp4", 9)
    capsys.readouterr()
    assert extract(tmp_path, start) == 1
    assert "a.safetensors: are features of what its video was before: delete the file" in capsys.readouterr().err
    (tmp_path / "a.safetensors").unlink()
    assert extract(tmp_path, start) == 0


def test_answers_are_the_same_and_go_on_from_what_was_made(
    start: Path, root: Path, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["answer", "--model", start, "--records", records, "--out", tmp_path / "a.jsonl", "--num_workers", 0]
    assert main([str(word) for word in [*argv, "--max_new_tokens", 5]]) == 0
    said = [json.loads(line)["answer"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert said[0] == said[1] == said[4] and said[2] == said[3]
    made, other = root / "in" / "a.safetensors", root / "b.safetensors"
    other.unlink()
    before = os.stat(made).st_mtime_ns
    # Who may read the records may read the features.
    assert os.stat(made).st_mode == os.stat(records).st_mode
    (root / "broken.mp4").write_bytes(b"no video")
    capsys.readouterr()
    assert extract(root, start) == 1
    told = capsys.readouterr()
    assert "features of 2 videos; 1 were there, 1 cannot be read" in told.out and "broken.mp4" in told.err
    assert extract(root, start, "--json") == 1
    counts = json.loads(capsys.readouterr().out)
    assert counts == {"out": str(root), "features": 2, "were_there": 2, "failures": 1}
    assert os.stat(made).st_mtime_ns == before and other.is_file()
    (root / "broken.mp4").unlink()

    begin_base(start.with_name("llama"), str(write_tower(tmp_path / "clip", seed=8)), tmp_path / "other")
    other.write_bytes(b"nothing")
    assert extract(root, tmp_path / "other") == 1
    told = capsys.readouterr()
    assert f"{made}: are features of another tower" in told.err and f"{other}: holds no features" in told.err
    assert "0 were there, 2 cannot be read" in told.out and os.stat(made).st_mtime_ns == before
    other.unlink()


def test_a_run_learns_from_features_and_refuses_those_of_another_tower(
    start: Path, root: Path, records: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.jsonl").write_text("".join(records.read_text().splitlines(keepends=True)[1:2]))
    write_json(tmp_path / "meta.json", {"a": {"root": str(root), "annotation": str(tmp_path / "train.jsonl")}})
    flags = (
        "--conv_style vicuna_v1 --normalize_type clip --force_image_size 28 --num_adapter_layers 0 --freeze_llm True "
        "--freeze_backbone True --max_num_frame 100 --max_steps 1 --learning_rate 1e-2 --report_to none "
        "--save_strategy no --dataloader_num_workers 0"
    ).split()
    paths = ["--meta_path", tmp_path / "meta.json", "--output_dir", tmp_path / "run", "--model_name_or_path", start]
    train(parse_arguments([*map(str, paths), *flags]))
    kept = load_file(tmp_path / "run" / "trained_modules.safetensors")
    begun = open_native(start)
    assert {name.split(".")[1] for name in kept} == {"multi_modal_projector"}
    assert all(not torch.equal(tensor, begun[name].read()) for name, tensor in kept.items())

    other = tmp_path / "other"
    tower = write_tower(tmp_path / "clip", seed=9)
    begin_base(start.with_name("llama"), str(tower), other)
    with pytest.raises(UserError, match=r"a.safetensors: are features of another tower"):
        train(parse_arguments([*map(str, paths[:-1]), str(other), "--overwrite_output_dir", "True", *flags]))


def test_pickles_of_the_original_become_the_same_files(start: Path, root: Path, tmp_path: Path) -> None:
    tokens = load_file(root / "in" / "a.safetensors")["video_features"].numpy()
    for protocol in (2, 5):
        (tmp_path / f"{protocol}.pkl").write_bytes(pickle.dumps(tokens, protocol))
    assert extract(tmp_path, start, "--pickles") == 0
    for protocol in (2, 5):
        converted = load_file(tmp_path / f"{protocol}.safetensors")
        extracted = load_file(root / "in" / "a.safetensors")
        assert all(torch.equal(converted[name], extracted[name]) for name in extracted)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch evil",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps(Evil()), "is no pickle of one array .asks for posix.system, and not for an array alone"),
        (pickle.dumps(np.array([OrderedDict()])), "asks for collections.OrderedDict"),
        (pickle.dumps({"a": np.zeros(2)}), "holds dict, expected an array of floating-point numbers"),
        (pickle.dumps(np.arange(3)), "holds ndarray, expected an array of floating-point numbers"),
        (pickle.dumps(np.zeros(300))[:90], "is no pickle of one array"),
        (b"", "is no pickle of one array"),
    ],
)
def test_a_pickle_with_anything_but_an_array_is_one_message(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_array(path)


def test_features_that_do_not_belong_are_one_message_each(
    start: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = root / "in" / "a.safetensors"
    tower = open_model(start).encoder.tower
    assert tower is not None
    mark = tower()
    halved = tuple(torch.tensor(mark).bfloat16().tolist())
    assert read_features(mine, halved).shape == (100 + NUM_PATCHES, TOWER_WIDTH)
    for other in ((*mark[:-1], mark[-1] + 0.01), (*mark[:3], 32, *mark[4:]), mark[:-1]):
        with pytest.raises(UserError, match="are features of another tower than this model's"):
            read_features(mine, other)
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="other.safetensors: holds no features of a video"):
        read_features(tmp_path / "other.safetensors", mark)
    (tmp_path / "wide.pkl").write_bytes(pickle.dumps(np.zeros((356, 1024), np.float16)))
    assert extract(tmp_path, start, "--pickles") == 1
    assert r"holds an array [356, 1024], expected finite numbers [104, 64]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("media", "said"),
    [
        ({"features": "x.safetensors"}, "has 'features' but no 'video'"),
        ({"image": "a.png", "features": "x.safetensors"}, "has 'features' but no 'video'"),
        (
            {"video": "x.safetensors", "tracks": [{"name": "a", "boxes": BOXES, "unit": "pixels", "order": "xyxy"}]},
            "has 'tracks' in a video that is given as features",
        ),
    ],
)
def test_records_that_cannot_show_their_features(media: dict[str, Any], said: str, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "x"}]
    write_jsonl(tmp_path / "r.jsonl", [{"id": 1, **media, "conversations": turns}])
    with pytest.raises(UserError, match=said):
        records_to_answer(tmp_path / "r.jsonl", tmp_path)


def test_a_model_that_reads_videos_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert extract(root, Path("quickstart/base")) == 1
    assert "a model of internvl reads videos themselves" in capsys.readouterr().err
