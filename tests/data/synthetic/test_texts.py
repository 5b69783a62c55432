"""Long texts as pictures: the original's lines, nothing cut off, nothing drawn as a box in silence."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from internvl_chat.__main__ import main
from internvl_chat.contracts import UserError
from internvl_chat.data.media.fonts import font_files
from internvl_chat.data.prompts.encoder import SampleEncoder
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.records.annotations import load_meta, read_samples
from internvl_chat.data.synthetic.lettering import Lettering
from internvl_chat.data.synthetic.text_pages import Page, PageStyle, draw_page, lay_out, legible
from internvl_chat.data.synthetic.texts import PRESETS, read_long_texts
from tests.helpers import byte_tokenizer, shared

DEJAVU = font_files()[:1]
STYLE = PageStyle(DEJAVU)
HAN = "天地玄黄宇宙洪荒日月盈昃，。（）「」"
WIDE = "⸻"


@pytest.fixture(scope="module")
def han_font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A font that has nothing but `HAN`, each sign a block of its own width in the em square, and `WIDE`."""
    path = tmp_path_factory.mktemp("fonts") / "han.ttf"
    names = {ord(sign): f"uni{ord(sign):04X}" for sign in HAN + WIDE}
    order = [".notdef", *names.values()]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(order)
    builder.setupCharacterMap(names)
    glyphs = {}
    for number, name in enumerate(order):
        pen = TTGlyphPen(None)
        right = 2900 if name == names[ord(WIDE)] else 500 + 20 * number
        corners = [(100, 0), (100, 700), (right, 700), (right, 0)]
        pen.moveTo(corners[0])
        for corner in corners[1:]:
            pen.lineTo(corner)
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(order, (1000, 100)))
    builder.setupHorizontalHeader(ascent=880, descent=-120)
    builder.setupNameTable({"familyName": "Han", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=880, sTypoDescender=-120, usWinAscent=880, usWinDescent=120)
    builder.setupPost()
    builder.save(path)
    return path


def pages_of(text: str, style: PageStyle = STYLE) -> list[Page]:
    return lay_out(legible(text, style).text, style)


def lines_of(text: str, style: PageStyle = STYLE) -> list[str]:
    return [line.text for page in pages_of(text, style) for line in page.lines]


def words(count: int, seed: int = 3) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 9))) for _ in range(count))


def ink(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture) < 128


def margin_is_white(page: Page, style: PageStyle) -> bool:
    """Whether a page has the same ink on a sheet with 60 pixels more on each side: nothing fell over the edge."""
    wide = PageStyle(style.fonts, style.font_px, style.page_px + 120, style.margin_px + 60, style.max_words)
    return bool(ink(draw_page(page, wide)).sum() == ink(draw_page(page, style)).sum())


def test_lines_and_pictures_are_the_originals() -> None:
    folder = shared("parity/t2vid_text")
    case = json.loads((folder / "text_case.json").read_text(encoding="utf-8"))
    assert (case["font_size"], case["image_size"], case["text_width"]) == (20, [448, 448], STYLE.text_px)
    for record in case["records"]:
        pages = pages_of(record["text"])
        assert [line.text for page in pages for line in page.lines] == record["lines"]
        assert sum(page.height_px for page in pages) == record["total_height"]
        assert len(pages) == 1 + record["overflows"]
        if not record["overflows"]:
            expected = np.asarray(Image.open(folder / record["image"]).convert("L")).astype(int)
            assert np.abs(np.asarray(draw_page(pages[0], STYLE)) - expected).mean() < 0.5
        assert all(page.height_px <= STYLE.page_px and margin_is_white(page, STYLE) for page in pages)


def test_verify_holds_on_recorded_texts_and_finds_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared("parity/t2vid_text")
    assert main(["verify", "--case", str(folder)]) == 0
    assert "full segment: pages equal" in capsys.readouterr().out
    case = json.loads((folder / "text_case.json").read_text(encoding="utf-8"))
    short, page, full, word = case["records"]
    changed = [
        short | {"lines": ["x"]},
        page | {"image": str(folder / word["image"])},
        full | {"overflows": False},
        word | {"total_height": 18},
    ]
    path = tmp_path / "text_case.json"
    path.write_text(json.dumps(case | {"records": [r | {"image": str(folder / r["image"])} for r in changed]}))
    assert main(["verify", "--case", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    for fault in (
        "lines differ from line 1 (2 for 1)",
        "grey values differ",
        "2 pages: expected one",
        "19 px high for 18",
    ):
        assert fault in told
    for content, said in (
        ("[]", "is no case: expected 'conv_style'"),
        ('{"font": "x"}', "no case of texts as pictures"),
    ):
        path.write_text(content)
        assert main(["verify", "--case", str(tmp_path)]) == 1
        assert said in capsys.readouterr().err


def test_a_text_goes_on_where_a_page_is_full() -> None:
    text = words(500)
    pages = pages_of(text)
    assert " ".join(line.text for page in pages for line in page.lines) == text
    counts = [sum(line.num_words for line in page.lines) for page in pages]
    assert sum(counts) == 500 and max(counts) <= 115
    # A page ends early only where the next line would not have fitted.
    for page, after, count in zip(pages, pages[1:], counts, strict=False):
        assert count == 115 or page.height_px + after.lines[0].height_px > 448
    short = PageStyle(DEJAVU, max_words=7)
    assert [len(" ".join(line.text for line in page.lines).split()) for page in pages_of(words(20), short)] == [7, 7, 6]


def test_marks_stay_at_their_words_and_white_space_is_one_space() -> None:
    assert lines_of("well , it's\n\n \t(so) \x1c said, no?\u2028the\u2029end") == ["well , it's (so) said, no? the end"]
    assert lines_of(" \n\x85 ") == []


def test_a_word_wider_than_a_line_is_broken_and_nothing_of_it_lost() -> None:
    word = "x" + words(60).replace(" ", "")
    lines = lines_of(f"a {word} b")
    assert lines[0] == "a" and lines[-1].endswith(" b") and len(lines) > 3
    assert "".join(lines[1:]).replace(" b", "") == word
    lettering = Lettering(DEJAVU, 20)
    assert all(lettering.width(line) <= STYLE.text_px for line in lines)


def test_chinese_lines_break_between_signs_but_not_before_a_closing_mark(han_font: Path) -> None:
    style = PageStyle((*DEJAVU, han_font))
    text = "天地玄黄宇宙洪荒日月盈昃" * 4 + "，（日月）。" + "天地" * 40
    lines = lines_of(text, style)
    assert "".join(lines) == text and legible(text, style).missing == ()
    assert [len(line) for line in lines[:2]] == [20, 20]
    assert not any(line[0] in "，。）」" for line in lines) and not any(line[-1] in "（「" for line in lines)
    shifted = lines_of("天" * 20 + "，" + "地" * 5, style)
    assert shifted == ["天" * 19, "天，" + "地" * 5]
    # Every sign counts as a word.
    pages = pages_of("天" * 300, PageStyle((*DEJAVU, han_font), max_words=40))
    assert [sum(len(line.text) for line in page.lines) for page in pages] == [40] * 7 + [20]


def test_text_from_right_to_left_stands_at_the_right_in_its_reading_order() -> None:
    text = "مرحبا بالعالم الجميل " * 12
    pages = pages_of(text)
    assert " ".join(line.text for line in pages[0].lines).split() == text.split()
    assert pages[0].is_rtl and not pages_of("hello")[0].is_rtl
    columns = np.flatnonzero(ink(draw_page(pages[0], STYLE)).any(axis=0))
    assert columns[-1] in range(425, 429) and margin_is_white(pages[0], STYLE)
    # The first of two words is the one at the right.
    first, both = pages_of("شمس"), pages_of("شمس قمر")
    one, two = (ink(draw_page(page[0], STYLE)) for page in (first, both))
    right = np.flatnonzero(one.any(axis=0))[0]
    assert np.array_equal(one[200:, right:], two[200:, right:])


def test_fonts_take_turns_on_one_baseline_and_in_visual_order(han_font: Path) -> None:
    style = PageStyle((*DEJAVU, han_font))
    plain, mixed = (ink(draw_page(pages_of(text, style)[0], style)) for text in ("ab", "ab天"))
    assert np.array_equal(plain[:, :44], mixed[:, :44]) and mixed[:, 44:].any() and not plain[:, 46:].any()
    bottom = np.flatnonzero(mixed.any(axis=1))[-1]
    assert bottom == np.flatnonzero(plain.any(axis=1))[-1]

    def order(text: str, is_rtl: bool) -> list[str]:
        runs = Lettering(style.fonts, 20)._visual_runs(text, is_rtl)
        return [run.text.strip() for run in runs if run.text.strip()]

    assert order("אב 天 גד", True) == ["גד", "天", "אב"]
    assert order("天 אב 地", False) == ["天", "אב", "地"]
    assert order("אב 天 12 גד", True) == ["גד", "天", "12", "אב"]


@pytest.mark.parametrize("text", ["e" + "\u0301" * 90, "a" + "\u0300" * 4000, "\u202e\u200d x", "\u05d0\u05b7" * 50])
def test_piled_up_marks_and_unseen_signs_are_never_cut_off(text: str) -> None:
    pages = pages_of(f"so {text} on")
    assert "".join(line.text for page in pages for line in page.lines).replace(" ", "") == f"so{text}on".replace(
        " ", ""
    )
    assert all(page.height_px <= STYLE.page_px and margin_is_white(page, STYLE) for page in pages)


def test_no_character_is_drawn_as_a_box_in_silence() -> None:
    found = legible("fox 🦊, grin 😀, 天\ud800, e\u0301 ﬁ\u200d", STYLE)
    assert found.missing == ("\ud800", "🦊", "天") and found.num_characters == len("fox🦊,grin😀,天x,e\u0301ﬁ\u200d")
    assert found.text == "fox \ufffd, grin 😀, \ufffd\ufffd, e\u0301 ﬁ\u200d"
    assert legible("∬ x", PageStyle()).missing == ()
    # Control characters and halves of pairs, which no font has, and what is called unseen but is drawn.
    odd = "\x00\ud800\u06dd\u3164\U00013430"
    assert legible(f"a{odd}\x1b[0m", STYLE).missing == ("\x00", "\ud800", "\x1b", "\u06dd", "\u3164", "\U00013430")
    assert legible(f"a{odd}\x1b[0m", STYLE).text == "a" + "\ufffd" * 6 + "[0m"
    unseen = "so\u200d\u2066\ufe0f\u00ad\U000e0041on"
    drawn = [ink(draw_page(pages_of(text)[0], STYLE)) for text in ("soon", unseen)]
    assert legible(unseen, STYLE).missing == () and np.array_equal(*drawn)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"font_px": 210}, "letters of 210 px .* do not fit"), ({"fonts": (Path(__file__),)}, "is no usable font")],
)
def test_a_style_that_cannot_be_drawn_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        legible("x", PageStyle(**{"fonts": DEJAVU, **change}))


def test_a_character_larger_than_the_picture_is_refused(han_font: Path) -> None:
    with pytest.raises(UserError, match=r"U\+2E3B is larger than a picture of 50 px"):
        pages_of(f"天 {WIDE}", PageStyle((han_font,), font_px=20, page_px=50, margin_px=5))


def test_known_sets_are_read_by_their_preset(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    paper = "Below is a paper.\nThe end? Now the paper ends. No.\nNow the paper ends.\nWhat is new?"
    path.write_text(json.dumps([{"instruction": paper, "output": "All."}, {"instruction": "Hi!", "output": "Ho."}]))
    first, second = read_long_texts(path, PRESETS["longalpaca"])
    assert first.context.endswith("Now the paper ends. No.\n") and (first.question, first.answer) == (
        "What is new?",
        "All.",
    )
    assert (second.context, second.question) == ("", "Hi!")
    path.write_text(json.dumps([{"input": "A story.\nIt ends.\nWho tells it?\n", "output": "I."}]))
    (only,) = read_long_texts(path, PRESETS["longqlora"])
    assert (only.context, only.question) == ("A story.\nIt ends.", "Who tells it?")


def write_texts(path: Path, contexts: Sequence[str], **changes: str) -> Path:
    records = [
        {"context": text, "question": f"What is {n}?", "answer": f"Text {n}."} for n, text in enumerate(contexts)
    ]
    records[-1] |= changes
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return path


def test_the_command_writes_folders_records_and_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contexts = [words(300), "fox 🦊 " + words(200), "天地玄黄" * 9, " ", words(30)]
    source, out = write_texts(tmp_path / "my texts.jsonl", contexts, answer=" "), tmp_path / "out"
    argv = ["render-texts", str(source), "--out", str(out), "--workers", "2", "--sheet", str(tmp_path / "sheet.png")]
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert "2 texts, 5 pictures" in said and "left out: 1 without answer" in said
    assert "no font has U+1F98A 🦊: 1 time in 1 text, as my_texts_00001" in said
    (entry,) = load_meta(out / "meta.json")
    samples = read_samples(entry)
    assert [sample.id for sample in samples] == ["my_texts_00000", "my_texts_00001"]
    assert samples[1].turns[0].text == "<video>\nWhat is 1?" and samples[1].turns[1].text == "Text 1."
    encoder = SampleEncoder(byte_tokenizer(), PromptConfig.of("internvl2_5", 448, 256))
    assert encoder.choose_frames(samples[0], 2, "middle").tolist() == [0, 1, 2]
    assert encoder.choose_frames(replace(samples[0], every_frame=False), 2, "middle").tolist() == [0, 1]
    assert sorted(p.name for p in (out / "my_texts_00001").iterdir()) == [f"text_pic_{n:05d}.png" for n in range(2)]
    report = json.loads((out / "report.json").read_text())
    assert report["left_out"] == {
        "my_texts_00002": "with too many characters that no font has",
        "my_texts_00003": "without context",
        "my_texts_00004": "without answer",
    }
    assert report["missing"]["my_texts_00001"] == {"U+1F98A": 1}
    assert Image.open(tmp_path / "sheet.png").width > 600

    # Killed: one folder is gone, another half done. What is there stays, and the rest comes out the same.
    pictures = {path: path.read_bytes() for path in out.rglob("*.png")}
    kept = out / "my_texts_00000" / "text_pic_00000.png"
    age = kept.stat().st_mtime_ns
    for path in (out / "my_texts_00001").iterdir():
        path.unlink()
    (out / "my_texts_00001").rename(out / ".my_texts_00001.7.tmp")
    assert main([*argv[:-2], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["texts"], told["pictures"], told["written_now"], told["missing"]["U+1F98A"]) == (2, 5, 1, 1)
    assert {path: path.read_bytes() for path in out.rglob("*.png")} == pictures
    assert kept.stat().st_mtime_ns == age and not list(out.glob(".*"))

    assert main([*argv, "--font_px", "21"]) == 1
    assert "was begun with another style: give a new folder" in capsys.readouterr().err
    assert main(["render-texts", str(source), "--out", str(tmp_path)]) == 1
    assert "is not empty and was not begun by this command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--context", "body"], r"texts.jsonl:1: has no text 'body' among \['answer', 'context', 'question'\]"),
        (["--split", "("], "--split '\\(': is no regular expression"),
        (["--font", "nowhere.ttf"], "nowhere.ttf: cannot be read"),
        (["--split", "#"], "none of 1 texts can be shown: 1 without context"),
    ],
)
def test_what_cannot_be_used_is_told(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_texts(tmp_path / "texts.jsonl", ["a b c"])
    assert main(["render-texts", str(source), "--out", str(tmp_path / "out"), "--workers", "1", *flags]) == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(capsys.readouterr().err)


def test_any_text_is_drawn_whole_or_reported() -> None:
    rng = random.Random(11)
    ranges = [(0, 0x250), (0x300, 0x370), (0x590, 0x700), (0x900, 0x980), (0x1F300, 0x1F600), (0x4E00, 0x4E20)]
    texts = [
        "".join(chr(rng.randint(*rng.choice(ranges))) if rng.random() < 0.8 else " " for _ in range(length))
        for length in rng.choices(range(300), k=25)
    ]
    for text in ["", "a" * 30_000, *texts]:
        readable = legible(text, STYLE)
        pages = lay_out(readable.text, STYLE)
        drawn = "".join(line.text for page in pages for line in page.lines)
        assert "".join(drawn.split()) == "".join(readable.text.split())
        assert drawn.count("\ufffd") == len(readable.missing) + text.count("\ufffd")
        assert all(page.height_px <= STYLE.page_px for page in pages)
        assert all(margin_is_white(page, STYLE) for page in pages)
