"""`python -m internvl_chat extract-frames`: the folders show what training shows of the videos themselves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from internvl_chat.__main__ import main
from internvl_chat.contracts import Sample
from internvl_chat.data.media.sources import frame_files
from internvl_chat.data.prompts.encoder import SampleEncoder
from internvl_chat.data.records.annotations import load_meta, read_samples
from internvl_chat.data.records.frame_folders import frames_at_rate
from tests.data.clips import decode_all, write_clip
from tests.helpers import run_python, shared


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Clips of 25 frames a second: a.mp4 of 3 s, deep/b.mkv of 1.2 s, tiny.mp4 of 0.2 s."""
    root = tmp_path / "videos"
    (root / "deep").mkdir(parents=True)
    for name, frames in (("a.mp4", 75), ("deep/b.mkv", 30), ("tiny.mp4", 5)):
        write_clip(root / name, frames)
    return root


def write_records(path: Path, *names: str) -> Path:
    turns = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "that"}]
    records = [{"id": name, "video": name, "conversations": turns} for name in names]
    records.append({"id": "text", "conversations": [{"from": "human", "value": "Hi"}, turns[1]]})
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_folders_hold_the_frames_that_training_reads_of_the_videos(
    videos: Path, tmp_path: Path, encoder: SampleEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    records, out = write_records(tmp_path / "lines.jsonl", "a.mp4", "deep/b.mkv"), tmp_path / "out"
    argv = ["extract-frames", str(videos), "--out", str(out), "--rate", "2", "--records", str(records)]
    assert main([*argv, "--workers", "2"]) == 0
    assert "2 videos, 8 frames; 0 were there, 0 cannot be read" in capsys.readouterr().out
    assert [p.name for p in frame_files(out / "a")] == [f"frame_{n:04d}.png" for n in range(1, 7)]
    assert frames_at_rate(videos / "a.mp4", 2).tolist() == [6, 19, 31, 44, 56, 69]
    (entry,) = load_meta(out / "meta.json")
    samples = read_samples(entry)
    assert [(sample.id, sample.turns[-1].text) for sample in samples] == [
        ("a.mp4", "that"),
        ("deep/b.mkv", "that"),
        ("text", "that"),
    ]
    for shown, video in zip(samples, (videos / "a.mp4", videos / "deep/b.mkv"), strict=False):
        assert shown.video_path == (out / video.relative_to(videos)).with_suffix("")
        folder, file = replace(shown, every_frame=True), replace(shown, video_path=video)
        both = [encoder(folder, encoder.choose_frames(folder, 1, "middle"))]
        both.append(encoder(file, encoder.choose_frames(file, 99, "fps2")))
        assert torch.equal(both[0]["input_ids"], both[1]["input_ids"])
        assert torch.equal(both[0]["vision"]["pixel_values"], both[1]["vision"]["pixel_values"])
        frames = np.stack([np.asarray(decode_all(video)[i]) for i in frames_at_rate(video, 2)])
        assert np.array_equal(frames, _read(folder))

    # Killed: one folder is gone, another half done.
    shutil.move(out / "a", out / ".a.7.tmp")
    kept = (out / "deep" / "b" / "frame_0001.png").stat().st_mtime_ns
    assert main(argv) == 0
    assert "2 videos, 8 frames; 1 were there" in capsys.readouterr().out
    assert (out / "deep" / "b" / "frame_0001.png").stat().st_mtime_ns == kept and not list(out.glob(".*"))
    assert main([*argv[:4], "--rate", "1"]) == 1
    assert "was begun with another rate" in capsys.readouterr().err


def _read(sample: Sample) -> np.ndarray:
    from internvl_chat.data.media.sources import read_pictures

    assert sample.video_path is not None
    return np.asarray(read_pictures(sample, np.arange(len(frame_files(sample.video_path)))))


def test_seconds_are_those_at_which_frames_are_shown(tmp_path: Path) -> None:
    """A frame rate that changes: 60 frames in the first second, then one a second; grey tells the second."""
    videos = tmp_path / "videos"
    assert run_python(shared("cases/variable_frame_rate.py"), videos).returncode == 0
    assert main(["extract-frames", str(videos), "--out", str(tmp_path / "out")]) == 0
    greys = [int(np.asarray(Image.open(file))[5, 5, 0]) for file in frame_files(tmp_path / "out" / "vfr")]
    assert len(greys) == 10 and np.abs(np.array(greys) - (20 + 12 * np.arange(10))).max() <= 2


def test_a_video_that_cannot_be_read_is_named_and_left_out(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (videos / "a.mp4").write_bytes(b"no video")
    records, out = write_records(tmp_path / "lines.jsonl", "a.mp4", "tiny.mp4"), tmp_path / "out"
    assert main(["extract-frames", str(videos), "--out", str(out), "--records", str(records)]) == 1
    said = capsys.readouterr()
    assert "a.mp4: is not a readable video" in said.err and "1 videos, 1 frames" in said.out
    lines = (out / "records.jsonl").read_text().splitlines()
    assert [json.loads(line).get("video") for line in lines] == ["tiny", None]
    assert not (out / "a").exists()


def test_what_counts_the_videos_own_frames_is_refused(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def refused(*argv: str) -> str:
        assert main(["extract-frames", str(videos), "--out", str(out), *argv]) == 1
        assert not out.exists()
        return capsys.readouterr().err

    records = write_records(tmp_path / "lines.jsonl", "a.mp4")
    line = json.loads(records.read_text().splitlines()[0])
    records.write_text(json.dumps(line | {"clip": [0, 1]}))
    assert "lines.jsonl:1: sample 'a.mp4' has a track or a clip" in refused("--records", str(records))
    records.write_text(json.dumps({"id": 1, "conversations": line["conversations"][1:]}))
    assert "no record shows a video" in refused("--records", str(records))
    assert "--rate 0.0: expected more than 0" in refused("--rate", "0")
    shutil.copyfile(videos / "a.mp4", videos / "a.mov")
    assert "a.*: are 2 videos of one name" in refused()
    both = write_records(tmp_path / "both.jsonl", "a.mp4", "a.mov")
    assert "a.*: are 2 videos of one name" in refused("--records", str(both))
