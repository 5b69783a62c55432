"""Multiple choice about videos: accuracy overall and by category, with MVBench, TempCompass and Video-MME as JSONL."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.records.reader import RecordReader
from internvl_chat.files import parse_json, raise_faults, read_text, split_records
from internvl_chat.scoring.multiple_choice import ChoiceItem, ChoiceScores, chosen_letter, options_of, score_choices
from internvl_chat.tasks.benchmark import Answers, Benchmark, Published, ScoreRow, Scores

_KEYS = ("video", "prompt", "GT")
# Source: T2Vid's README; the test set's name, then each model's accuracy on it.
_CONDITIONS = "T2Vid, 24 frames; replies that no rule read went to a language model"
_MODELS = (
    "MiniCPM-V 2.5, zero-shot",
    "MiniCPM-V 2.5 after 200K videos",
    "MiniCPM-V 2.5 after 20K videos and 10K texts as videos",
    "Idefics3, zero-shot",
    "Idefics3 after 200K videos",
    "Idefics3 after 20K videos and 10K texts as videos",
)
_PUBLISHED = {
    "videomme": (48.2, 50.8, 53.0, 51.2, 53.3, 56.3),
    "mvbench": (42.9, 48.0, 48.4, 49.6, 50.7, 51.6),
    "tempcompass": (49.1, 54.7, 56.8, 55.9, 62.9, 62.3),
}


def read(source: Path) -> Benchmark:
    """The questions of a JSONL file, `{"question_id", "video", "prompt", "GT", "category"}`, as T2Vid published them.

    Videos lie under the file's folder. A question goes by its `question_id`, by its line where that is missing.

    Args:
        source: the file, or a folder with one such file.
    Raises:
        UserError: all lines that are no such question, or an id that comes twice.
    """
    path = _file_of(source)
    reader, faults = RecordReader(path.parent), list[str]()
    samples: list[Sample] = []
    items: list[ChoiceItem] = []
    for raw in split_records(read_text(path), path):
        where = f"{path}:{raw.line}"
        try:
            sample, item = _question(parse_json(raw.text, where), reader, where, raw.line)
        except UserError as error:
            faults.append(str(error))
            continue
        samples.append(sample)
        items.append(item)
    ids = Counter(sample.id for sample in samples)
    faults += [f"{path}: question_id {name!r} comes {count} times" for name, count in ids.items() if count > 1]
    raise_faults(faults)
    if not samples:
        raise UserError(f"{path}: holds no questions")

    def score(answers: Answers) -> Scores:
        replies = [(answers.get(sample.id) or [""])[0] for sample in samples]
        given = [
            ChoiceItem(item.options, item.truth, reply, item.category)
            for item, reply in zip(items, replies, strict=True)
        ]
        overall, by_category = score_choices(given)
        named = {name: scores for name, scores in by_category.items() if name}
        values = {"accuracy": overall.accuracy, "unparsed": overall.unparsed}
        details = {**asdict(overall), "categories": {name: asdict(scores) for name, scores in named.items()}}
        text = "".join(_line(name, s) for name, s in [*named.items(), ("all", overall)])
        rows = [_row("accuracy", overall), *(replace(_row(name, s), is_whole=False) for name, s in named.items())]
        return Scores(values, text, details, rows)

    return Benchmark(samples, score, published=_published_on(path))


def _published_on(path: Path) -> list[Published]:
    """What was published on the test set that a file is called after."""
    called = re.sub("[^a-z]", "", f"{path.parent.name} {path.stem}".lower())
    shares = next((shares for name, shares in _PUBLISHED.items() if name in called), ())
    return [
        Published(model, {"accuracy": share / 100}, _CONDITIONS) for model, share in zip(_MODELS, shares, strict=False)
    ]


def _row(name: str, scores: ChoiceScores) -> ScoreRow:
    return ScoreRow(name, scores.accuracy, scores.questions, scores.interval, scores.unparsed)


def _file_of(source: Path) -> Path:
    if not source.is_dir():
        return source
    files = sorted(source.glob("*.jsonl"))
    if len(files) != 1:
        raise UserError(f"{source}: holds {len(files)} .jsonl files, expected one of questions: name the file itself")
    return files[0]


def _question(entry: object, reader: RecordReader, where: str, line: int) -> tuple[Sample, ChoiceItem]:
    missing = [key for key in _KEYS if not isinstance(entry, dict) or not isinstance(entry.get(key), str)]
    if not isinstance(entry, dict) or missing:
        raise UserError(f"{where}: has no {', '.join(missing)}, expected texts")
    turns = [{"from": "human", "value": f"{VIDEO_PLACEHOLDER}\n{entry['prompt']}"}]
    record = {"id": entry.get("question_id", f"line {line}"), "video": entry["video"], "conversations": turns}
    sample = reader.read(record, where)
    options = options_of(entry["prompt"])
    truth = chosen_letter(entry["GT"], options)
    if truth is None:
        raise UserError(f"{where}: 'GT' is {entry['GT']!r:.80}: expected one of {', '.join(options) or 'A to E'}")
    category = entry.get("category", "")
    return sample, ChoiceItem(options, truth, "", category if isinstance(category, str) else str(category))


def _line(name: str, scores: ChoiceScores) -> str:
    return (
        f"{name}: {scores.accuracy:.3f} ({scores.interval.low:.3f} to {scores.interval.high:.3f}) of "
        f"{scores.questions}, {scores.unparsed} not read\n"
    )
