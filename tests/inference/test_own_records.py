"""Own data all the way: records of any layout are captioned, probed and drawn by their meta JSON alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval_const
from internvl_chat.__main__ import main
from internvl_chat.contracts import UserError
from internvl_chat.data.records.annotations import DatasetEntry
from internvl_chat.files import read_json, write_json, write_jsonl
from internvl_chat.scoring.predictions import read_facts, read_predictions

FLAGS = ["--num_frames", "3", "--max_new_tokens", "5", "--num_workers", "0"]


@pytest.fixture(scope="module")
def own_meta(shapes_entry: DatasetEntry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip with two tracks and one with a single one, in a folder of their own; nothing is answered."""
    folder = tmp_path_factory.mktemp("clips")
    pairs = read_json(shapes_entry.root / "other_target.json")
    first, second = sorted(pairs)[0], pairs[sorted(pairs)[0]]
    third = next(i for i in sorted(pairs) if i not in (first, second))
    records = []
    for video_id, of_track, name in ((first, first, "one"), (first, second, "two"), (third, third, "three")):
        source = shapes_entry.root / video_id.split("-")[0] / video_id / f"{video_id}.mp4"
        shutil.copy(source, folder / f"{video_id} clip.mp4")
        npy = shapes_entry.root / of_track.split("-")[0] / of_track / "object_bboxes.npy"
        track = {"name": f"toy {name}", "boxes": np.load(npy).tolist(), "unit": "thousandths", "order": "xyxy"}
        turns = [{"from": "human", "value": f"<video>\nWhat does toy {name} do?"}]
        records.append(
            {"id": f"{name}/../x", "video": f"{video_id} clip.mp4", "tracks": [track], "conversations": turns}
        )
    write_jsonl(folder / "records.jsonl", records)
    # Of the challenge's own ids, as such a folder may hold it; the records' are others.
    write_json(folder / "other_target.json", pairs)
    write_json(folder / "meta.json", {"own": {"root": str(folder), "annotation": str(folder / "records.jsonl")}})
    return folder / "meta.json"


IDS = ["one/../x", "two/../x", "three/../x"]


def test_records_are_captioned_under_their_own_ids(
    captioner_folder: Path, own_meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--model", captioner_folder, "--meta", own_meta, "--out", tmp_path / "out", *FLAGS]
    argv += ["--sheet", tmp_path / "sheet.png", "--sheet_clips", 2]
    assert eval_const.run(eval_const.build_parser().parse_args(list(map(str, argv)))) == 0
    said = read_predictions(tmp_path / "out")
    assert list(said) == IDS and read_predictions(tmp_path / "out" / "result.json") == said
    assert not (tmp_path / "out" / "scores.json").exists()
    facts = read_facts(tmp_path / "out" / "answers.jsonl")
    assert (facts["data"], facts["num_frames"], facts["frames_chosen"]) == (str(own_meta), 3, "evenly")
    sheet = Image.open(tmp_path / "sheet.png")
    assert capsys.readouterr().out.startswith(f"3 captions written to {tmp_path / 'out'}\n")
    argv[-3:] = [tmp_path / "three.png", "--sheet_clips", 3]
    assert eval_const.run(eval_const.build_parser().parse_args(list(map(str, argv)))) == 0
    assert Image.open(tmp_path / "three.png").height > sheet.height
    assert f"3 captions written to {tmp_path / 'out'}, 3 of them by an earlier run\n" in capsys.readouterr().out

    # Where the root looks like the challenge's, its test videos are meant unless the records are asked for.
    looks_like_theirs = own_meta.parent / "toy" / "toy-15"
    looks_like_theirs.mkdir(parents=True)
    with pytest.raises(UserError, match="holds no private test videos"):
        eval_const.run(eval_const.build_parser().parse_args(list(map(str, argv))))
    argv[-4:] = ["--split", "records"]
    assert eval_const.run(eval_const.build_parser().parse_args(list(map(str, argv)))) == 0
    assert read_predictions(tmp_path / "out") == said
    shutil.rmtree(looks_like_theirs.parent)

    # A chosen record is asked as in company, and in other words if they are said.
    (tmp_path / "ids.json").write_text(json.dumps(IDS[1:2]))
    argv = ["--model", captioner_folder, "--meta", own_meta, "--ids", tmp_path / "ids.json", *FLAGS, "--out"]
    assert eval_const.run(eval_const.build_parser().parse_args([*map(str, argv), str(tmp_path / "one")])) == 0
    assert read_predictions(tmp_path / "one") == {IDS[1]: said[IDS[1]]}
    more = [str(tmp_path / "other"), "--prompt_form", "coordinates"]
    assert eval_const.run(eval_const.build_parser().parse_args([*map(str, argv), *more])) == 0
    assert read_predictions(tmp_path / "other") != read_predictions(tmp_path / "one")


def test_references_without_a_word_are_told_before_the_work(
    captioner_folder: Path, own_meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = own_meta.parent
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    for record, answer in zip(records, ("It moves.", " .", ""), strict=True):
        record["conversations"].append({"from": "gpt", "value": answer})
    write_jsonl(folder / "answered.jsonl", records)
    meta = folder / "answered.json"
    write_json(meta, {"own": {"root": str(folder), "annotation": str(folder / "answered.jsonl")}})
    argv = ["eval", "--model", captioner_folder, "--meta", meta, "--out", tmp_path / "out", *FLAGS]
    assert main(list(map(str, argv))) == 1
    told = capsys.readouterr().err
    assert f"error: {IDS[1]}: a reference holds no word: [' .']: leave it out\n{IDS[2]}: a reference" in told
    assert not (tmp_path / "out").exists()
    for record in records[1:]:
        record["conversations"][-1]["value"] = "It stands."
    write_jsonl(folder / "answered.jsonl", records)
    assert main(list(map(str, argv))) == 0
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(
        f"next: python -m internvl_chat report {tmp_path / 'out'} --references {meta} --out report.html  #"
    )


def test_control_finds_the_other_object_by_itself(
    captioner_folder: Path, own_meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["control", "--model", captioner_folder, "--meta", own_meta, "--out", tmp_path / "control.json", *FLAGS]
    argv += ["--probes", "swap", "shrink", "--sheet", tmp_path / "sheet.png"]
    assert main(list(map(str, argv))) == 0
    points = {(p["probe"], p["level"]): p for p in read_json(tmp_path / "control.json")["points"]}
    assert {key: p["clips"] for key, p in points.items()} == {("own", 0): 3, ("swap", 1): 2} | {
        ("shrink", level): 3 for level in (0.25, 0.5, 0.75, 0.9)
    }
    # Nothing is known to be right, so that only change is measured.
    assert {point["own"] for point in points.values()} == {None}
    assert read_json(tmp_path / "control.json")["run"]["data"] == str(own_meta)
    # Of the two objects of one clip one is shown: own, other, shrunk; of the third clip own and shrunk.
    assert Image.open(tmp_path / "sheet.png").height == 5 * 180


def test_where_no_clip_shows_two_objects_what_to_give_is_said(
    captioner_folder: Path, own_meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ids.json").write_text(json.dumps(IDS[2:]))
    argv = ["control", "--model", captioner_folder, "--meta", own_meta, "--ids", tmp_path / "ids.json", *FLAGS]
    assert main(list(map(str, argv))) == 1
    error = capsys.readouterr().err
    assert "--other_target FILE names pairs" in error and "--probes null" in error


def test_ids_of_another_dataset_are_told(captioner_folder: Path, own_meta: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.json").write_text('["dog-1", "dog-2"]')
    argv = ["--model", captioner_folder, "--meta", own_meta, "--ids", tmp_path / "ids.json", *FLAGS]
    with pytest.raises(UserError, match=r"none of the 2 ids is that of a record.*dog-1/dog-1\.mp4: are they of this"):
        eval_const.run(eval_const.build_parser().parse_args(list(map(str, argv))))


def test_a_folder_above_a_checkpoint_says_where_it_is(
    own_meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = tmp_path / "run" / "train"
    inside.mkdir(parents=True)
    (inside / "trained_modules.safetensors").touch()
    (inside / "trainer_state.json").write_text("{}")
    assert main(["control", "--model", str(tmp_path / "run"), "--meta", str(own_meta)]) == 1
    assert f"did you mean {inside}?" in capsys.readouterr().err
