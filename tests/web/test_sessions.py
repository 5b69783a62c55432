"""Sessions that are there again, clips that can be opened, and room that is made."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from internvl_chat.contracts import UserError
from internvl_chat.web.pointing import DrawnBox, PointedClip
from internvl_chat.web.sessions import SessionFolder, Sessions
from internvl_chat.web.shelf import Shelf, file_name_of
from internvl_chat.web.workbench import Workbench

BLANK = PointedClip("a/clip.mp4", (70, 50), 11)


@pytest.fixture
def video(shapes_root: Path) -> Path:
    return sorted(shapes_root.glob("*/*/*.mp4"))[0]


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(Sessions(tmp_path / "sessions", 2_000_000), Shelf(None))


def test_what_is_pointed_at_is_there_again(tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path / "one")
    assert folder.open_clip() is None and folder.load(BLANK) is BLANK
    pointed = BLANK.at(3).with_drawn([DrawnBox(None, (1.25, 2, 30, 40)), DrawnBox(None, (40, 9, 8, 7))], 1)
    first, second = pointed.objects
    sure = np.linspace(1, 0.2, 11)
    first = (
        first.with_track(np.full((11, 4), 2.5), sure, (0, 11))
        .absent_from(9)
        .with_captions(["ein Hund \u2013 läuft", "b"])
    )
    pointed = replace(pointed, objects=(first, second), chosen=2, next_name="Hund", by_clicks=True)
    folder.save(pointed)
    again = folder.load(BLANK)
    assert folder.open_clip() == "a/clip.mp4"
    assert (again.frame, again.chosen, again.next_name, again.by_clicks) == (3, 2, "Hund", True)
    for now, then in zip(again.objects, pointed.objects, strict=True):
        assert np.array_equal(now.boxes_px, then.boxes_px) and np.array_equal(now.confidence, then.confidence)
        plain = {"boxes_px": None, "confidence": None}
        assert vars(replace(now, **plain)) == vars(replace(then, **plain))


def test_each_clip_keeps_its_objects_and_another_video_of_its_name_has_none(tmp_path: Path) -> None:
    folder, other = SessionFolder(tmp_path), replace(BLANK, clip="b.mp4")
    folder.save(BLANK.with_drawn([DrawnBox(None, (1, 2, 30, 40))], 1))
    folder.save(other)
    assert folder.open_clip() == "b.mp4" and folder.load(other).objects == ()
    assert len(folder.load(BLANK).objects) == 1
    assert folder.load(replace(BLANK, num_frames=12)).objects == ()


@pytest.mark.parametrize("session", ["", None, 3, "../" * 10 + "etc", "0" * 31, "G" * 32])
def test_only_ids_that_were_given_out_name_a_folder(tmp_path: Path, session: object) -> None:
    sessions = Sessions(tmp_path, 10)
    assert len(sessions.begin(session)) == 32
    with pytest.raises(UserError, match="reload"), sessions.opened(session):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_session_that_was_longest_not_used_makes_room(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, 10_000)
    names = ["a" * 32, "b" * 32, "c" * 32]
    for age, name in enumerate(names):
        with sessions.opened(name) as folder:
            folder.save(replace(BLANK, clip=name))
            (folder.folder / "large").write_bytes(b"0" * 2_500)
        os.utime(tmp_path / name / "open.json", (1_000 + age, 1_000 + age))
    # One that is in use stays, however long ago it was used before.
    with sessions.opened("a" * 32), ThreadPoolExecutor(1) as other:
        other.submit(sessions.make_room, "c" * 32, 3_000).result()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a" * 32, "c" * 32]
    with pytest.raises(UserError, match="larger --max_gb"):
        sessions.make_room("c" * 32, 9_000)


def test_an_upload_is_kept_under_a_plain_name_and_opened(bench: Workbench, video: Path, tmp_path: Path) -> None:
    session = bench.sessions.begin("")
    given = tmp_path / "<b>my clip\u2028.mp4"
    shutil.copyfile(video, given)
    pointed = bench.upload(session, given)
    assert (pointed.clip, pointed.size_px, pointed.num_frames) == ("upload: _b_my clip_.mp4", (192, 144), 24)
    assert file_name_of(pointed.clip) == "_b_my clip_.mp4"
    with bench.at_work(session) as work:
        assert work.picture().shape == (144, 192, 3)
    with pytest.raises(UserError, match="not there any more"):
        bench.open_clip(bench.sessions.begin(""), pointed.clip)


def test_another_video_of_an_uploads_name_is_another_clip(bench: Workbench, shapes_root: Path, tmp_path: Path) -> None:
    """As long as the first one, so that nothing but its content tells it."""
    session, given = bench.sessions.begin(""), tmp_path / "clip.mp4"
    one, other = sorted(shapes_root.glob("*/*/*.mp4"))[:2]
    shutil.copyfile(one, given)
    pointed = bench.upload(session, given)
    with bench.at_work(session) as work:
        work.keep(pointed.with_drawn([DrawnBox(None, (1, 2, 30, 40))], 1))
    shutil.copyfile(other, given)
    second = bench.upload(session, given)
    assert (second.clip, second.objects) == ("upload: clip (2).mp4", ())
    given.write_text("no video")
    with pytest.raises(UserError):
        bench.upload(session, given)
    shutil.copyfile(one, given)
    again = bench.upload(session, given)
    assert (again.clip, len(again.objects)) == (pointed.clip, 1)


def test_what_is_no_video_is_not_kept(bench: Workbench, tmp_path: Path) -> None:
    session = bench.sessions.begin("")
    for name, said in (("a.txt", "is no video"), ("a.mp4", "cannot be read|not a readable")):
        (tmp_path / name).write_text("no video")
        with pytest.raises(UserError, match=said):
            bench.upload(session, tmp_path / name)
    assert list((tmp_path / "sessions" / session / "uploads").glob("*")) == []
    with pytest.raises(UserError, match="choose a clip"), bench.at_work(session):
        pass


def test_the_folder_of_clips_is_listed_and_nothing_beside_it(shapes_root: Path, tmp_path: Path) -> None:
    shelf = Shelf(shapes_root)
    assert len(shelf.names) == 12 and shelf.names[0].endswith(".mp4")
    assert shelf.path_of(shelf.names[0], tmp_path).is_file()
    with pytest.raises(UserError, match="not there any more"):
        shelf.path_of("../" + shelf.names[0], tmp_path)
    with pytest.raises(UserError, match="holds no video"):
        Shelf(tmp_path)
    # A browser cannot be told of a name that is no text.
    (tmp_path / os.fsdecode(b"\xff.mp4")).touch()
    (tmp_path / "caf\xe9.mp4").touch()
    assert Shelf(tmp_path).names == ("caf\xe9.mp4",)
    with pytest.raises(UserError, match="is no folder"):
        Shelf(tmp_path / "nowhere")
