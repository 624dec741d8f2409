"""Label names in the picture: drawn by a font that has them, else told apart by their ids, with a key."""

import io
import re
from pathlib import Path

import matplotlib.font_manager
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textcls.reporting.label_names import DrawnNames
from textcls.reporting.picture import PNG_SIZE, draw_report
from textcls.reporting.report import Report
from textcls.tasks.metrics import Counts, summarise

CHINESE = ("好评", "差评", "中性")


@pytest.fixture
def no_font(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without any font; matplotlib has its own."""
    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", list)


def use_fonts(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: [str(path) for path in paths])


def make_font(path: Path, family: str, characters: str) -> Path:
    """A font that draws each of the characters as a square."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    corners = [(100, 0), (100, 800), (900, 800), (900, 0)]
    pen.moveTo(corners[0])
    for corner in corners[1:]:
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    glyphs = [".notdef", *(f"uni{ord(char):06X}" for char in characters)]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(glyphs)
    font.setupCharacterMap(dict(zip(map(ord, characters), glyphs[1:], strict=True)))
    font.setupGlyf(dict.fromkeys(glyphs, square))
    font.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 100)))
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": family, "styleName": "Regular"})
    font.setupOS2(sTypoAscender=900, usWinAscent=900, usWinDescent=100)
    font.setupPost()
    font.save(path)
    return path


def report_of(labels: list[str]) -> Report:
    truth = np.arange(200) % len(labels)
    p = np.random.default_rng(0).dirichlet(np.ones(len(labels)), size=len(truth))
    return Report.model_validate({"test": summarise(Counts.of(p, truth), labels)})


# --- without a font --------------------------------------------------------------------------------------------------


def test_names_that_are_equal_without_what_no_font_has_get_their_ids(no_font: None) -> None:
    drawn = DrawnNames.of(["好评", "plain", "A好", "A坏", "ok👍", "ok👎", "ok"])
    assert drawn.names == ("#0", "plain", "A #2", "A #3", "ok #4", "ok #5", "ok #6")
    assert drawn.missing == set("好评坏👍👎")
    assert drawn.key == {
        0: r"\u597d\u8bc4",
        2: r"A\u597d",
        3: r"A\u574f",
        4: r"ok\U0001f44d",
        5: r"ok\U0001f44e",
        6: "ok",
    }


def test_names_that_can_be_drawn_stand_as_they_are_and_need_no_key(no_font: None) -> None:
    labels = ("negative", "so so", "café", "Привет", "❤\ufe0f", "$x$", "a_b")
    drawn = DrawnNames.of(labels)
    assert drawn.names == tuple(label.replace("\ufe0f", "") for label in labels)
    assert (drawn.key, drawn.missing) == ({}, set())


def test_long_names_are_cut_and_the_key_has_the_whole(no_font: None) -> None:
    labels = ["order not delivered: lost", "order not delivered: late", "returns", "x" * 300]
    drawn = DrawnNames.of(labels)
    assert drawn.names == ("order not del… #0", "order not del… #1", "returns", "xxxxxxxxxxxxx… #3")
    assert [drawn.key[n] for n in (0, 1)] == labels[:2]
    assert drawn.key[3].startswith("xxxxx")
    assert len(drawn.key[3]) < 60


def test_control_characters_are_drawn_as_escapes(no_font: None) -> None:
    assert DrawnNames.of(["a\nb", "c\x1b[1m\u202e"]).names == (r"a\nb", r"c\x1b[1m\u202e")


@pytest.mark.parametrize("labels", [("A #1", "A好"), ("A好", "A #0", "A坏"), ("#1", "好"), ("a  b", "a b"), ("", " ")])
def test_a_name_that_looks_like_one_with_an_id_is_told_apart(no_font: None, labels: tuple[str, ...]) -> None:
    assert len(set(DrawnNames.of(labels).names)) == len(labels)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab #1好评👍\n\u200d\ufe0f"), max_size=25), unique=True, min_size=1))
def test_no_two_labels_are_drawn_alike_and_ids_are_their_own(no_font: None, labels: list[str]) -> None:
    drawn = DrawnNames.of(labels)
    assert len(set(drawn.names)) == len(labels)
    for label_id in drawn.key:
        assert re.search(r"#(\d+)$", drawn.names[label_id])[1] == str(label_id)  # type: ignore[index]


# --- with fonts ------------------------------------------------------------------------------------------------------


def test_a_font_of_the_system_draws_what_matplotlib_s_own_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    useless = tmp_path / "a.ttf"
    useless.write_bytes(b"no font")
    latin = make_font(tmp_path / "b.ttf", "Latin Squares", "abc")
    chinese = make_font(tmp_path / "c.ttf", "Chinese Squares", "好评差中性")
    emoji = make_font(tmp_path / "d.ttf", "Emoji Squares", "👍👎")
    use_fonts(monkeypatch, useless, latin, emoji, chinese)
    drawn = DrawnNames.of([*CHINESE, "ok👍", "한"])
    assert drawn.names == (*CHINESE, "ok👍", "#4")
    assert drawn.families == ("DejaVu Sans", "Chinese Squares", "Emoji Squares")
    assert drawn.missing == {"한"}


def test_a_likely_font_is_tried_before_others_and_bold_ones_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (
        "zz-Regular.ttf",
        "NotoSansCJK-Bold.ttc",
        "aa-Bold.ttf",
        "wqy-zenhei.ttc",
        "LastResort.otf",
        "NotoSansCJK.ttc",
    )
    use_fonts(monkeypatch, *(make_font(tmp_path / name, name, "好") for name in names))
    assert DrawnNames.of(["好"]).families == ("DejaVu Sans", "NotoSansCJK.ttc")
    use_fonts(monkeypatch, *(tmp_path / name for name in names[:3]))
    assert DrawnNames.of(["好"]).families == ("DejaVu Sans", "NotoSansCJK-Bold.ttc")
    use_fonts(monkeypatch, tmp_path / "LastResort.otf")
    assert DrawnNames.of(["好"]).names == ("#0",), "a font that pictures missing letters has none"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("found", [False, True])
def test_the_picture_is_drawn_without_a_missing_letter(
    found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    use_fonts(monkeypatch, *([make_font(tmp_path / "f.ttf", "Some Squares", "好评差中性")] if found else []))
    png = draw_report(report_of([*CHINESE, "A好", "A中", "👨\u200d👩\u200d👧", "مرحبا", "नमस्ते", "$\\frac{x$" * 9]))
    assert Image.open(io.BytesIO(png)).size == PNG_SIZE


def test_the_key_is_in_the_picture(no_font: None) -> None:
    from matplotlib.figure import Figure

    from textcls.reporting.picture import _draw_key

    figure = Figure()
    names = DrawnNames.of([*CHINESE, "plain", "ok"])
    assert 0 < _draw_key(figure, names, range(5)) < 0.15
    written = [text.get_text() for text in figure.texts]
    assert written[:3] == [r"#0  \u597d\u8bc4", r"#1  \u5dee\u8bc4", r"#2  \u4e2d\u6027"]
    assert "fonts-noto-cjk" in written[3]
    assert _draw_key(Figure(), DrawnNames.of(["plain", "ok"]), range(2)) == 0


def test_letters_are_joined_and_ordered_as_their_script_wants() -> None:
    font = matplotlib.font_manager.get_font(matplotlib.font_manager.findfont("DejaVu Sans"))

    def width(text: str) -> int:
        font.set_text(text)
        return font.get_width_height()[0]

    assert width("سسس") < 0.9 * 3 * width("س")
    assert width("مي") != width("م\u200cي")
