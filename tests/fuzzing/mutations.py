"""Broken files: bytes changed at random, and documents drawn by Hypothesis that are nearly right."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tests.fuzzing.seedbed import NUM_FRAMES, records

# What parsers stumble over: numbers at their ends, other scripts' digits, marks, depth, ways out of a folder.
_BITS = b'NaN -Infinity 1e999 -0 18446744073709551616 0x10 1_0 true null [] {} "" ../../x /etc/passwd nan inf'.split()
TOKENS: tuple[bytes, ...] = (
    *_BITS,
    *(text.encode() for text in ("\u0663", "\uff11", "\u2028", "\ufeff", "<video>", "<image>", "\\ud800", "\\u0000")),
    b"\x00",
    b"\xff\xfe",
    b"\n",
    b",",
    b"[" * 3000,
    b'{"a":' * 2000,
    b"9" * 5000,
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content with one to eight random changes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        length = min(rng.choice((1, 1, 2, 4, 16, 256)), len(data) - at)
        kind = rng.randrange(8)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
        elif kind == 5:
            data[at:at] = rng.choice(TOKENS)
        elif kind == 6:
            token = rng.choice(TOKENS)[:64]
            data[at : at + len(token)] = token
        else:
            del data[at:]
    return bytes(data)


_NUMBERS = st.one_of(st.integers(-5, 1100), st.floats(-2, 2), st.sampled_from([10**30, 1e308, -1e308, True, None]))
_TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "<video>\n", "<image>\n", "<video>", "\x00", "..", "../x", "/", ".", "a" * 300, "\ud800"]),
    st.sampled_from(["cup-1/cup-1.mp4", "still.jpg", "frames", "frames/2.png", "moving.gif", "cup"]),
)
_ANYTHING = st.recursive(
    st.one_of(_NUMBERS, _TEXTS), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=3)
)
_BOXES = st.lists(st.lists(_NUMBERS, min_size=4, max_size=4) | _ANYTHING, max_size=NUM_FRAMES + 1)
_TRACKS = st.fixed_dictionaries(
    {
        "name": _TEXTS,
        "boxes": _BOXES | st.dictionaries(st.sampled_from(["0", "1", "6", "7", "x", "1.5", "-1"]), _ANYTHING),
    },
    optional={
        "by": st.sampled_from(["frame", "second", "minute"]) | _ANYTHING,
        "unit": st.sampled_from(["pixels", "unit", "thousandths"]) | _ANYTHING,
        "order": st.sampled_from(["xyxy", "xywh"]) | _ANYTHING,
        "absent": st.lists(st.integers(-1, 9)) | _ANYTHING,
    },
)
_TURNS = st.fixed_dictionaries(
    {}, optional={"from": st.sampled_from(["human", "gpt", "system", "user"]) | _ANYTHING, "value": _TEXTS | _ANYTHING}
)
_DRAWN_RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "id": _TEXTS | _ANYTHING,
        "conversations": st.lists(_TURNS | _ANYTHING, max_size=4) | _ANYTHING,
        "image": _TEXTS | st.lists(_TEXTS, max_size=3) | _ANYTHING,
        "video": _TEXTS | _ANYTHING,
        "clip": st.lists(_NUMBERS, max_size=3) | _ANYTHING,
        "tracks": st.lists(_TRACKS | _ANYTHING, max_size=2) | _ANYTHING,
        "width": _NUMBERS,
        "height": _NUMBERS,
    },
)


@st.composite
def annotation_lines(draw: st.DrawFn) -> bytes:
    """A sound record with some of its keys drawn anew, beside sound ones."""
    lines: list[Any] = records()
    at = draw(st.integers(0, len(lines) - 1))
    drawn = draw(_DRAWN_RECORDS)
    lines[at] = draw(st.sampled_from([{**lines[at], **drawn}, drawn])) if draw(st.booleans()) else draw(_ANYTHING)
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@st.composite
def foreign_files(draw: st.DrawFn, sound: Any) -> bytes:
    """A document of another project with some of its values, at any depth, drawn anew."""

    def drawn(node: Any) -> Any:
        kind = draw(st.integers(0, 60))
        if kind == 60:
            return draw(_ANYTHING)
        if isinstance(node, dict):
            return {key: drawn(value) for key, value in node.items() if kind != 59 or draw(st.booleans())}
        return [drawn(value) for value in node] if isinstance(node, list) else node

    return json.dumps(drawn(sound)).encode()


def meta_files(folder: str) -> st.SearchStrategy[bytes]:
    """Meta JSON files of a dataset in `folder`, with odd values."""
    entries = st.fixed_dictionaries(
        {"root": st.just(f"{folder}/root") | _TEXTS, "annotation": st.just("lines.jsonl") | _TEXTS | _ANYTHING},
        optional={
            "repeat_time": _NUMBERS,
            "length": _NUMBERS,
            "weight": _NUMBERS,
            "max_dynamic_patch": _NUMBERS,
            "data_augment": st.booleans() | _ANYTHING,
            "object_names": st.dictionaries(_TEXTS, _TEXTS | _ANYTHING, max_size=2) | _ANYTHING,
            "surplus": _ANYTHING,
        },
    )
    return st.builds(
        lambda content: json.dumps(content).encode(), st.dictionaries(_TEXTS, entries | _ANYTHING, max_size=3)
    )


_BOX_LINES = st.one_of(
    st.just("8,6,16,12"),
    st.builds(lambda v, gap: gap.join(map(str, v)), st.lists(_NUMBERS, max_size=5), st.sampled_from(list(", \t;"))),
    st.text(max_size=9),
)
box_texts: st.SearchStrategy[bytes] = st.builds(
    lambda sound, rows: "\n".join(["8,6,16,12"] * sound + rows).encode("utf-8", "surrogatepass"),
    st.integers(0, NUM_FRAMES),
    st.lists(_BOX_LINES, max_size=4),
)


@st.composite
def box_arrays(draw: st.DrawFn) -> bytes:
    """Files that numpy writes: arrays of any kind and shape, with Python objects in some."""
    within = st_numpy.arrays(np.int32, (NUM_FRAMES, 4), elements=st.integers(0, 1000))
    kinds = st_numpy.scalar_dtypes() | st.just(np.dtype("int64"))
    shape = draw(st.just((NUM_FRAMES, 4)) | st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9))
    array = draw(within) if draw(st.booleans()) else draw(st_numpy.arrays(draw(kinds), shape))
    file = io.BytesIO()
    np.save(file, array.astype(object) if draw(st.integers(0, 9)) == 0 else array, allow_pickle=True)
    return file.getvalue()
