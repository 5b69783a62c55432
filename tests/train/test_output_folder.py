"""Two runs in one folder, another number of processes, other data, a full disk: told before a weight is loaded."""

from __future__ import annotations

import logging
import os
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest

from internvl_chat.contracts import Sample, Turn, UserError
from internvl_chat.files import read_json, write_json
from internvl_chat.train import output_folder
from internvl_chat.train.output_folder import (
    check_free_disk,
    check_same_data,
    data_facts,
    held,
    warn_of_another_batch,
    warn_of_another_prompt,
)
from tests.helpers import ROOT
from tests.train.conftest import BASE_MODEL

pytestmark = pytest.mark.process


def test_a_folder_belongs_to_one_run_at_a_time(tmp_path: Path) -> None:
    with held(tmp_path / "new"):
        with pytest.raises(UserError, match="new: another run is writing there"), held(tmp_path / "new"):
            pass
        with held(tmp_path / "other"):
            pass
    with held(tmp_path / "new"):
        assert not list((tmp_path / "new").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: cannot be used"), held(tmp_path / "file"):
        pass


@pytest.fixture
def record(tmp_path: Path) -> Path:
    sizes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}
    write_json(tmp_path / "run.json", {"world_size": 4, "samples": 40, "passes": 8, "training": sizes})
    return tmp_path / "run.json"


def test_another_batch_is_told(record: Path, caplog: pytest.LogCaptureFixture) -> None:
    order = {"seed": 1, "data_seed": None, "group_by_length": False, "max_packed_tokens": 0}
    with caplog.at_level(logging.WARNING):
        warn_of_another_batch(record, 24, order)
        assert not caplog.text
        warn_of_another_batch(record, 12, order)
    assert "a step was of 24 passes, from here on 12" in caplog.text


@pytest.mark.parametrize(("flag", "value"), [("seed", 7), ("group_by_length", True), ("max_packed_tokens", 600)])
def test_another_order_of_the_epoch_is_told(
    flag: str, value: object, record: Path, caplog: pytest.LogCaptureFixture
) -> None:
    order = {"seed": 42, "data_seed": None, "group_by_length": False, "max_packed_tokens": 0}
    sizes = read_json(record)["training"]
    data = {"max_packed_tokens": order["max_packed_tokens"]}
    training = {**sizes, **{key: str(value) if value is None else value for key, value in order.items()}}
    write_json(record, {"world_size": 4, "data": data, "training": training})
    warn_of_another_batch(record, 24, order)
    assert not caplog.text, "as the trainer writes them down"
    with caplog.at_level(logging.WARNING):
        warn_of_another_batch(record, 24, {**order, flag: value})
    assert f"--{flag} was {order[flag]} and is {value} from here on: the epoch goes on in another order" in caplog.text


def test_another_way_to_ask_and_show_is_told(record: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {"red_box": "on", "force_image_size": 448, "meta_path": "a.json", "sampling_method": "rand"}
    write_json(record, {"data": before})
    with caplog.at_level(logging.WARNING):
        warn_of_another_prompt(record, {**before, "meta_path": "elsewhere/a.json", "new_flag": 1})
        assert not caplog.text
        warn_of_another_prompt(record, {**before, "red_box": "off"})
    assert "--red_box was on and is off from here on: what was trained until now was asked or shown" in caplog.text


def test_a_run_goes_on_with_the_data_it_began_with(record: Path) -> None:
    def facts(answer: str, count: int = 40) -> dict[str, int | str]:
        return data_facts([Sample("a", (Turn("human", "?"), Turn("gpt", answer)), "a.jsonl:1")] * count, count // 5)

    check_same_data(record, facts("a dog"))
    check_same_data(record.with_name("none.json"), facts("a dog"))
    with pytest.raises(UserError, match="trained on 40 records in 8 passes, this run has 20 records in 4 passes"):
        check_same_data(record, facts("a dog", 20))
    write_json(record, {**read_json(record), **facts("a dog")})
    check_same_data(record, facts("a dog"))
    with pytest.raises(UserError, match="trained on 40 records in 8 passes, this run has other records"):
        check_same_data(record, facts("a cat"))


def test_a_checkpoint_must_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(output_folder.shutil, "disk_usage", lambda _: usage(9, 9, 15_000))
    check_free_disk(tmp_path, 1000, 2)
    with pytest.raises(UserError, match="a checkpoint takes about 0.0 GB"):
        check_free_disk(tmp_path, 1100, 2)


def test_the_last_line_is_what_went_wrong_and_the_port_is_free(shapes_meta: Path, tmp_path: Path) -> None:
    torchrun = tmp_path / "bin" / "torchrun"
    torchrun.parent.mkdir()
    torchrun.write_text('#!/bin/sh\necho "error: no such meta"\necho "port $MASTER_PORT"\nseq 30\nexit 3\n')
    torchrun.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if name != "MASTER_PORT"}
    env |= {"PATH": f"{torchrun.parent}:{env['PATH']}", "OUTPUT_DIR": str(tmp_path / "out"), "GPUS": "1"}
    env |= {"BATCH_SIZE": "1", "PER_DEVICE_BATCH_SIZE": "1", "MODEL_PATH": str(BASE_MODEL)}
    env["META_PATH"] = str(shapes_meta)

    def launch() -> subprocess.CompletedProcess[str]:
        argv = ["bash", str(ROOT / "shell/launch.sh")]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)

    first, second = launch(), launch()
    assert first.returncode == 3 and first.stderr.splitlines()[-1] == "error: no such meta"
    assert not (tmp_path / "out").exists(), "a start that came to nothing left a folder"
    ports = [line for run in (first, second) for line in run.stdout.splitlines() if line.startswith("port ")]
    assert len(ports) == 2 and "port 34229" not in ports
    torchrun.write_text("#!/bin/sh\nexit 4\n")
    assert "ended with status 4" in launch().stderr.splitlines()[-1]
    (tmp_path / "file").touch()
    env["OUTPUT_DIR"] = str(tmp_path / "file")
    assert "cannot be written to: give another folder" in launch().stderr.splitlines()[-1]
