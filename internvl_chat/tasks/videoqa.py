"""Open questions about videos: the share of answers that are the right one, as MSVD, MSRVTT and TGIF publish theirs."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict
from pathlib import Path
from typing import Any

from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.media.sources import videos_below
from internvl_chat.data.records.reader import RecordReader
from internvl_chat.data.records.video_lists import CAPTIONED_SUFFIXES
from internvl_chat.files import raise_faults, read_json
from internvl_chat.scoring.significance import share_interval
from internvl_chat.tasks.benchmark import Answers, Benchmark, ScoreRow, Scores

_QUESTIONS, _ANSWERS = "test_q.json", "test_a.json"
_ARTICLES = frozenset(("a", "an", "the"))


def read(source: Path) -> Benchmark:
    """The questions of a folder with `test_q.json`, `test_a.json` and the videos, which may lie anywhere below.

    The files are lists of the same length, `{"video_name", "question", "question_id"}` and `{"answer", "type"}`; a
    video's name may lack its suffix. An answer is right where it is the right one but for case, punctuation and
    articles. Published accuracies are a judge's, who takes other words too: `score-answers --as qa` asks one.

    Args:
        source: the folder.
    Raises:
        UserError: all entries that are no such question or whose video is not there, or an id that comes twice.
    """
    asked, truths = (_list_of(source / name) for name in (_QUESTIONS, _ANSWERS))
    if len(asked) != len(truths):
        raise UserError(f"{source}: {len(asked)} questions in {_QUESTIONS} and {len(truths)} answers in {_ANSWERS}")
    lying = _videos_below(source)
    reader, faults, samples = RecordReader(source), list[str](), dict[str, Sample]()
    right: dict[str, tuple[str, str]] = {}
    for number, (question, truth) in enumerate(zip(asked, truths, strict=True)):
        where = f"{source / _QUESTIONS}: entry {number}"
        try:
            answer, kind = _truth_of(truth, f"{source / _ANSWERS}: entry {number}")
            sample = reader.read(_record_of(question, lying, where), where)
            if sample.id in samples:
                raise UserError(f"{where}: question_id {sample.id!r} comes twice")
        except UserError as error:
            faults.append(str(error))
            continue
        samples[sample.id], right[sample.id] = sample, (answer, kind)
    raise_faults(faults)

    def score(answers: Answers) -> Scores:
        is_right = {i: plain((answers.get(i) or [""])[0]) == plain(answer) for i, (answer, _) in right.items()}
        by_kind: dict[str, list[bool]] = {}
        for i, (_, kind) in right.items():
            by_kind.setdefault(kind, []).append(is_right[i])
        rows = {**({k: v for k, v in by_kind.items() if k} if len(by_kind) > 1 else {}), "all": list(is_right.values())}
        shares = {name: share_interval(sum(row), len(row)) for name, row in rows.items()}
        text = "".join(
            f"{name}: {sum(row) / len(row):.3f} ({shares[name].low:.3f} to {shares[name].high:.3f}) of {len(row)}\n"
            for name, row in rows.items()
        )
        unanswered = sum(not (answers.get(i) or [""])[0].strip() for i in right)
        details = {name: {"accuracy": sum(row) / len(row), **asdict(shares[name])} for name, row in rows.items()}
        values = {"exact": sum(is_right.values()) / len(is_right), "unanswered": unanswered}
        table = [
            ScoreRow("exact" if name == "all" else name, sum(row) / len(row), len(row), shares[name], 0, name == "all")
            for name, row in rows.items()
        ]
        return Scores(values, text, {"shares": details}, sorted(table, key=lambda row: not row.is_whole))

    return Benchmark(list(samples.values()), score)


def plain(text: str) -> str:
    """An answer without case, punctuation and articles: "A dog." is "dog"."""
    kept = "".join(" " if unicodedata.category(c)[0] in "PS" else c for c in text.casefold())
    return " ".join(word for word in kept.split() if word not in _ARTICLES)


def _list_of(path: Path) -> list[Any]:
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise UserError(f"{path}: expected a list with an entry a question")
    return content


def _videos_below(root: Path) -> dict[str, list[str]]:
    """Paths of videos relative to `root`, by file name and by file name without suffix."""
    found: dict[str, list[str]] = {}
    for path in videos_below(root, CAPTIONED_SUFFIXES):
        for name in {path.name, path.stem}:
            found.setdefault(name, []).append(path.relative_to(root).as_posix())
    return found


def _truth_of(entry: object, where: str) -> tuple[str, str]:
    answer = entry.get("answer") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(answer, str) or not plain(answer):
        raise UserError(f"{where}: {entry!r:.80}: expected {{'answer': a text}}")
    return answer, str(entry.get("type", ""))


def _record_of(entry: object, lying: dict[str, list[str]], where: str) -> dict[str, Any]:
    keys = ("video_name", "question", "question_id")
    if not isinstance(entry, dict) or any(key not in entry for key in keys) or not isinstance(entry["question"], str):
        raise UserError(f"{where}: {entry!r:.80}: expected {', '.join(keys)}")
    name = str(entry["video_name"])
    if name not in lying:
        raise UserError(f"{where}: no video {name} below the folder")
    if len(lying[name]) > 1:
        raise UserError(
            f"{where}: {name!r} may be {lying[name][0]} or {lying[name][1]}: expected one video of this name"
        )
    turns = [{"from": "human", "value": f"{VIDEO_PLACEHOLDER}\n{entry['question']}"}]
    return {"id": str(entry["question_id"]), "video": lying[name][0], "conversations": turns}
