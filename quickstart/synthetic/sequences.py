"""Shapes in order: as clips that show one after the other, and as texts that name one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.data.synthetic.shapes import COLOURS, HEIGHT_PX, SHAPES, WIDTH_PX, Clip, MovingShape
from internvl_chat.files import write_json, write_jsonl

LENGTH = 4
NUMBERS = ("no", "one", "two", "three", "four")
PLACES = ("first", "second", "third", "fourth")
_SIZE_PX = (60.0, 100.0)


def draw_sequence(rng: np.random.Generator) -> list[tuple[str, str]]:
    """Colour and shape of each: colours all differ, shapes may come again."""
    colours = rng.permutation(list(COLOURS))[:LENGTH]
    return [(str(colour), str(shape)) for colour, shape in zip(colours, rng.choice(SHAPES, LENGTH), strict=True)]


def asked_of(sequence: list[tuple[str, str]], rng: np.random.Generator) -> tuple[str, str]:
    """A question about a sequence and its answer: which is at a place, which follows another, how many there are."""
    names = [f"{colour} {shape}" for colour, shape in sequence]
    place = int(rng.integers(LENGTH))
    kind = rng.integers(3)
    if kind == 0:
        return f"What is {PLACES[place]}?", names[place]
    if kind == 1 and place:
        return f"What is after the {names[place - 1]}?", names[place]
    shape = str(rng.choice(SHAPES))
    plural = f"{shape}es" if shape.endswith("s") else f"{shape}s"
    return f"How many {plural} are there?", NUMBERS[sum(shown == shape for _, shown in sequence)]


def write_clips(folder: Path, name: str, count: int, questions: int, seed: int) -> Path:
    """Write a folder of frames a clip, each with one shape anywhere, and a file of records with so many questions."""

    def records() -> Iterator[dict[str, Any]]:
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            sequence = draw_sequence(rng)
            clip = folder / f"{name}_{number:05d}"
            clip.mkdir(parents=True)
            for place, (colour, shape) in enumerate(sequence):
                size = rng.uniform(*_SIZE_PX)
                corner = rng.uniform(0, 1, 2) * ([WIDTH_PX - size, HEIGHT_PX - size])
                item = MovingShape(colour, shape, "still", np.array([[*corner, size, size]]))
                frame = Clip((item,), background_seed=int(rng.integers(2**31))).frame(0)
                Image.fromarray(frame).save(clip / f"{place}.png", compress_level=1)
            for asked in range(questions):
                question, answer = asked_of(sequence, rng)
                turns = [
                    {"from": "human", "value": f"{VIDEO_PLACEHOLDER}\n{question}"},
                    {"from": "gpt", "value": answer},
                ]
                yield {"id": f"{clip.name}-{asked}", "video": clip.name, "conversations": turns}

    write_jsonl(folder / f"{name}.jsonl", records())
    return folder / f"{name}.jsonl"


def write_texts(path: Path, count: int, seed: int) -> None:
    """Write texts that name shapes in order, with a question and an answer each, for `render-texts`."""

    def record(number: int) -> dict[str, str]:
        rng = np.random.default_rng([seed, number])
        sequence = draw_sequence(rng)
        question, answer = asked_of(sequence, rng)
        text = " ".join(f"{colour} {shape}" for colour, shape in sequence)
        return {"context": text, "question": question, "answer": answer}

    write_json(path, [record(number) for number in range(count)])
