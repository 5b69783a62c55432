"""Faults of a conversation: who speaks, where placeholders stand, what the texts and the boxes in them hold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from internvl_chat.constants import (
    BOX_END,
    BOX_START,
    IMAGE_PLACEHOLDER,
    REF_END,
    REF_START,
    REGION_PLACEHOLDER,
    STEERING_TOKENS,
    VIDEO_PLACEHOLDER,
)
from internvl_chat.contracts import Turn
from internvl_chat.data.checking.faults import Finding
from internvl_chat.data.prompts.wordings import question_turn
from internvl_chat.data.records.names import INVISIBLE
from internvl_chat.data.records.reader import SPEAKERS

SPEAKER_ALIASES = {"user": "human", "assistant": "gpt", "bot": "gpt"}
TURN_KEY_ALIASES = {"text": "value", "content": "value", "role": "from"}

# How other projects mark names, places and parts of a picture in their texts: ms-swift, Qwen-VL, Florence, PaliGemma,
# Kosmos, DeepSeek-VL, GLM-V, OFA, MiniGPT-v2, Molmo, Groma, LLaVA-Grounding, GLaMM; and keys of the JSON that
# Qwen2.5-VL and Gemini write.
FOREIGN_MARKS = re.compile(
    r"<\|/?(?:begin_of_|end_of_)?(?:box|object_ref|quad|vision|ref|det|grounding|point)(?:_[a-z]+)?\|>"
    r"|<ref-object>|<bbox>|<(?:loc|bin|bbox|seg)_?\d{1,4}>|<patch_index_\d{4}>|\{(?:<\d{1,4}>){4}|<points? x\d?="
    r"|<grounding>|</?phrase>|<delimiter_of_multi_objects/>|<region\d*>|<roi>|<g_[se]>|\[SEG\]"
    r'|"b?box_2d"'
)
# Four numbers in brackets, as Shikra, LLaVA and CogVLM write boxes.
_FOREIGN_BOXES = re.compile(
    FOREIGN_MARKS.pattern + r"|\[\s*0?\.\d+(?:\s*,\s*[01]?\.\d+){3}\s*\]|\[\[\d{1,4}(?:\s*,\s*\d{1,4}){3}\]"
)
_DAMAGE = re.compile(f"[\ufffd\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f{INVISIBLE}]")
_VIDEO_LINE = re.compile(re.escape(VIDEO_PLACEHOLDER) + r"[ \t]*\n?")
_BOX_SPAN = re.compile(re.escape(BOX_START) + r"(.*?)" + re.escape(BOX_END), re.DOTALL)
# A word of up to seven letters, a digit or a sign is about one token of the family's tokenizers.
_ABOUT_A_TOKEN = re.compile(r"[A-Za-z]{1,7}|[^A-Za-z\s]")
_TOKENS_PER_TURN = 5
# Beyond any coordinate, and within what a float and a 64-bit integer hold.
_LARGEST = 1e15


@dataclass
class Notes:
    """Collects the findings of one annotation line."""

    file: Path
    line: int
    findings: list[Finding] = field(default_factory=list)

    def add(self, code: str, found: str, expected: str) -> None:
        self.findings.append(Finding(code, self.file, self.line, found, expected))


@dataclass(frozen=True)
class TextFacts:
    """What a conversation says: its turns, the boxes written in it [(x1, y1, x2, y2)], and about how many tokens."""

    turns: tuple[Turn, ...] = ()
    boxes: tuple[tuple[float, ...], ...] = ()
    num_tokens: int = 0
    lists_coordinates: bool = False


def break_after_video(text: str) -> str:
    """The text with a line break after each `<video>`."""
    return _VIDEO_LINE.sub(VIDEO_PLACEHOLDER + "\n", text)


def ascii_digits(text: str) -> str:
    """The text with every decimal digit of another script written as 0 to 9."""
    return text if text.isascii() else "".join(str(int(c)) if c.isdecimal() else c for c in text)


def ascii_box_digits(text: str) -> str:
    """The text with the digits inside `<box>..</box>` written as 0 to 9."""
    return _BOX_SPAN.sub(lambda match: ascii_digits(match.group()), text)


def renamed_turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    """The turn with other frameworks' keys and speakers called `from`, `value`, `human` and `gpt`.

    A key is renamed only where the right one is missing, so nothing is lost.
    """
    renamed = dict(turn)
    for alias, key in TURN_KEY_ALIASES.items():
        if alias in renamed and key not in renamed:
            renamed[key] = renamed.pop(alias)
    speaker = renamed.get("from")
    if isinstance(speaker, str):
        renamed["from"] = SPEAKER_ALIASES.get(speaker, speaker)
    return renamed


def examine_conversation(
    content: Any, num_images: int, num_videos: int, record_id: str, notes: Notes, has_tracks: bool = False
) -> TextFacts:
    """Note every fault of `conversations`, for a record that names so many pictures and videos.

    A question of a record with tracks may say `<bbox>` once, where a region's token is to stand.
    """
    if not isinstance(content, list) or not content:
        notes.add("record-keys", f"'conversations' is {shortened(content)}", "a list of at least two turns")
        return TextFacts()
    turns = []
    for number, entry in enumerate(content, start=1):
        turn = _read_turn(entry, number, notes)
        if turn is None:
            return TextFacts()
        turns.append(turn)
    _check_order(turns, notes)
    _check_placeholders(turns, num_images, num_videos, notes)
    boxes: list[tuple[float, ...]] = []
    for number, turn in enumerate(turns, start=1):
        mentions = has_tracks and turn.speaker == "human"
        _check_text(turn, number, record_id, notes, REGION_PLACEHOLDER if mentions else "")
        boxes += _read_boxes(turn.text, number, notes)
    return TextFacts(
        tuple(turns),
        tuple(boxes),
        sum(len(_ABOUT_A_TOKEN.findall(turn.text)) + _TOKENS_PER_TURN for turn in turns),
        any("coordinates" in turn.controls for turn in turns),
    )


def shortened(value: Any, length: int = 60) -> str:
    """The value as JSON, cut to `length` characters, for messages."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= length else text[: length - 3] + "..."


def _read_turn(entry: Any, number: int, notes: Notes) -> Turn | None:
    if not isinstance(entry, dict):
        notes.add("turn-keys", f"turn {number} is {shortened(entry)}", "an object with 'from' and 'value'")
        return None
    if not {"from", "value"} <= entry.keys():
        notes.add("turn-keys", f"turn {number} has the keys {sorted(entry)}", "'from' and 'value'")
    turn = renamed_turn(entry)
    speaker, text = turn.get("from"), turn.get("value")
    if not isinstance(speaker, str) or not isinstance(text, str):
        if {"from", "value"} <= entry.keys():
            notes.add("turn-keys", f"turn {number} is {shortened(entry)}", "texts under 'from' and 'value'")
        return None
    if speaker not in SPEAKERS or ("from" in entry and entry["from"] != speaker):
        written = entry.get("from", speaker)
        notes.add("turn-speaker", f"turn {number} is from {shortened(written)}", "'system', 'human' or 'gpt'")
    return question_turn(text) if speaker == "human" else Turn(speaker, text)


def _check_order(turns: Sequence[Turn], notes: Notes) -> None:
    spoken = list(turns[1:] if turns[0].speaker == "system" else turns)
    for index, turn in enumerate(spoken):
        expected = "gpt" if index % 2 else "human"
        if turn.speaker in SPEAKERS and turn.speaker != expected:
            number = index + 1 + len(turns) - len(spoken)
            notes.add("turn-order", f"turn {number} is from {turn.speaker!r}", f"{expected!r}")
            return
    if len(spoken) % 2:
        notes.add("question-alone", f"the last of {len(turns)} turns is from {turns[-1].speaker!r}", "'gpt'")
    elif not spoken:
        notes.add("turn-order", f"the last of {len(turns)} turns is from {turns[-1].speaker!r}", "'gpt'")


def _check_placeholders(turns: Sequence[Turn], num_images: int, num_videos: int, notes: Notes) -> None:
    for number, turn in enumerate(turns, start=1):
        if turn.speaker != "human" and (IMAGE_PLACEHOLDER in turn.text or VIDEO_PLACEHOLDER in turn.text):
            notes.add("placeholder-place", f"turn {number}, from {turn.speaker!r}, holds a placeholder", "text alone")
    questions = [turn.text for turn in turns if turn.speaker == "human"]
    late = [n for n, turn in enumerate(turns, start=1) if turn.speaker == "human" and VIDEO_PLACEHOLDER in turn.text]
    if num_videos and late and VIDEO_PLACEHOLDER not in questions[0]:
        notes.add("placeholder-place", f"turn {late[0]} holds the '<video>'", "it in the first question")
    for placeholder, num_files in ((IMAGE_PLACEHOLDER, num_images), (VIDEO_PLACEHOLDER, num_videos)):
        count = sum(text.count(placeholder) for text in questions)
        if count == num_files:
            continue
        expected = f"{num_files} '{placeholder}', one a file"
        if count == 0 and num_images + num_videos == 1:
            code = "placeholder-missing" if num_images else "placeholder-video"
            notes.add(code, f"no '{placeholder}' in the questions", expected)
        else:
            notes.add("placeholder-count", f"the questions hold {count} '{placeholder}'", expected)
    if num_videos and any(text.count(VIDEO_PLACEHOLDER) != text.count(VIDEO_PLACEHOLDER + "\n") for text in questions):
        notes.add("placeholder-break", "'<video>' is followed by text", "a line break after it")


def _check_text(turn: Turn, number: int, record_id: str, notes: Notes, mention: str = "") -> None:
    bare = turn.text.replace(IMAGE_PLACEHOLDER, "").replace(VIDEO_PLACEHOLDER, "").strip()
    if turn.speaker == "gpt":
        if not bare:
            notes.add("answer-empty", f"turn {number} is empty", "an answer to learn")
        elif bare == record_id:
            notes.add("answer-is-id", f"turn {number} says {shortened(bare)}, as 'id' does", "an answer to learn")
    elif turn.speaker == "human" and not bare:
        notes.add("question-empty", f"turn {number} asks nothing", "a question")
    tokens = [token for token in STEERING_TOKENS if token in turn.text]
    if tokens:
        notes.add("text-token", f"turn {number} holds {', '.join(tokens)}", "text without control tokens")
    foreign = FOREIGN_MARKS if BOX_START in turn.text or BOX_END in turn.text else _FOREIGN_BOXES
    if mark := foreign.search(turn.text.replace(mention, "", 1)):
        expected = "<ref>name</ref><box>[[x1, y1, x2, y2]]</box>"
        notes.add("text-foreign", f"turn {number} holds {mark.group()}", expected)
    if damage := _DAMAGE.search(turn.text):
        notes.add("text-damaged", f"turn {number} holds U+{ord(damage.group()):04X}", "readable text")
    if ascii_digits(outside := _BOX_SPAN.sub("", turn.text)) != outside:
        digits = sorted({c for c in outside if c.isdecimal() and not c.isascii()})
        notes.add("text-digits", f"turn {number} holds the digits {''.join(digits)}", "digits 0 to 9")


def _read_boxes(text: str, number: int, notes: Notes) -> list[tuple[float, ...]]:
    """The boxes written in one turn; what cannot be read is noted."""
    for start, end in ((BOX_START, BOX_END), (REF_START, REF_END)):
        if text.count(start) != text.count(end):
            found = f"turn {number} holds {text.count(start)} '{start}' and {text.count(end)} '{end}'"
            notes.add("box-syntax", found, f"one '{end}' for each '{start}'")
            return []
    boxes: list[tuple[float, ...]] = []
    for span in _BOX_SPAN.findall(text):
        plain = ascii_digits(span)
        if plain != span:
            notes.add("box-digits", f"turn {number} writes {BOX_START}{span[:60]}{BOX_END}", "digits 0 to 9")
        try:
            rows = json.loads(plain)
        except (ValueError, RecursionError):
            rows = None
        if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
            notes.add("box-syntax", f"turn {number} writes {BOX_START}{span[:60]}{BOX_END}", "[[x1, y1, x2, y2], ...]")
            continue
        read = [box_row(row) for row in rows]
        if None in read:
            notes.add("box-shape", f"turn {number} writes {BOX_START}{span[:60]}{BOX_END}", "four numbers a box")
        boxes += [row for row in read if row is not None]
    return boxes


def box_row(row: Any) -> tuple[float, ...] | None:
    """The value as four numbers, if it is a list of four; a number too large for a float is infinite."""
    if not isinstance(row, list) or len(row) != 4 or not all(type(v) in (int, float) for v in row):
        return None
    return tuple(float(v) if abs(v) < _LARGEST else math.inf for v in row)
