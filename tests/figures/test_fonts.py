"""Names in any script, with dollars and underscores, on figures (fedsim/figures/fonts.py)."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

import fedsim
from fedsim.figures import fonts
from fedsim.figures.fonts import FAMILY, fit_text, told
from fedsim.figures.labels import shown_name
from fedsim.figures.style import new_figure, save_png, styled
from fedsim.records.run_folder import PARTITION
from tests.samples.run import sample_run

LETTER = "数"


@pytest.fixture
def installed(tmp_path):
    """A font with one Chinese letter, installed for the time of a test."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((1000, 0))
    pen.lineTo((500, 1000))
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "letter"])
    builder.setupCharacterMap({ord(LETTER): "letter"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "letter": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "letter": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "One Letter", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "one.ttf")
    before = list(fontManager.ttflist)
    fontManager.addfont(tmp_path / "one.ttf")
    fonts._fallbacks.cache_clear()
    yield "One Letter"
    fontManager.ttflist[:] = before
    fonts._fallbacks.cache_clear()


def drawn(tmp_path, *texts, x=1):
    with styled():
        figure = new_figure(2)
        axes = figure.subplots()
        axes.plot([x, 2 * x, 3 * x], [1, 10, 100], label=shown_name(texts[0]))
        axes.set_yscale("log")
        axes.set_xticks(range(len(texts)), texts)
        axes.set_title(texts[0])
        axes.legend()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png = save_png(figure, tmp_path / f"figure{len(list(tmp_path.iterdir()))}")
    return figure, png.read_bytes()


def test_a_letter_that_an_installed_font_has_is_drawn_in_it(installed, tmp_path, caplog):
    _, boxes = drawn(tmp_path, "\u4e0d")
    figure, picture = drawn(tmp_path, f"a {LETTER}")
    (label,) = figure.axes[0].get_xticklabels()
    assert label.get_fontfamily() == [FAMILY, installed]
    assert figure.axes[0].title.get_fontfamily() == [FAMILY, installed]
    assert picture != boxes
    with told() as lines:
        drawn(tmp_path, LETTER)
    assert not lines and not caplog.records


@pytest.mark.parametrize("text", ["Größe", "Данные", "بيانات", "αβγ", "naïve → x"])
def test_what_the_usual_font_has_stays_in_it(text, tmp_path):
    with told() as lines:
        figure, _ = drawn(tmp_path, text)
    assert not lines
    assert figure.axes[0].title.get_fontfamily() == [FAMILY]


def test_what_no_font_has_is_said_once_in_plain_words(tmp_path, caplog):
    """Letters of a private use area, which no font of the system has."""
    with caplog.at_level(logging.WARNING), told() as lines:
        drawn(tmp_path, "\U0010f123", "\U0010f124")
        drawn(tmp_path, "\U0010f123")
    assert [record.getMessage() for record in caplog.records] == lines
    (line,) = lines
    assert line.startswith("figures: no installed font has ") and "(2 characters)" in line
    assert "install a font" in line and "\n" not in line


@pytest.mark.parametrize(
    "text", ["$x", "a $x_1$ b", r"$\frac{", r"$\nothing$", "_hidden", "__", "a_b", "a\\$b", "x^2 {", "%#&"]
)
def test_no_name_is_mathematics(text, tmp_path):
    figure, _ = drawn(tmp_path, text)
    (label,) = figure.axes[0].get_xticklabels()
    assert "$" not in text or not label.get_parse_math()


def test_numbers_of_logarithmic_axes_are_powers_still(tmp_path):
    figure, _ = drawn(tmp_path, "$x$")
    labels = [label for label in figure.axes[0].get_yticklabels() if "10^" in label.get_text()]
    assert labels and all(label.get_parse_math() for label in labels)


def test_a_name_that_begins_with_an_underscore_is_in_legends(tmp_path):
    figure, _ = drawn(tmp_path, shown_name("_x"))
    assert [text.get_text().strip() for text in figure.axes[0].get_legend().get_texts()] == ["_x"]


def test_long_names_and_names_of_several_lines_are_one_short_line():
    assert shown_name("a\tb\r\nc\x00d") == "a b c d"
    assert len(shown_name("数" * 100)) == 34
    assert shown_name("") == ""


def test_texts_that_are_fitted_twice_are_as_they_were(tmp_path):
    figure, _ = drawn(tmp_path, "a $1$")
    fit_text(figure)
    assert np.array_equal(figure.axes[0].title.get_fontfamily(), [FAMILY])


def test_a_page_with_names_that_no_font_has_says_so_and_shows_no_warning(tmp_path, recwarn):
    run = sample_run(tmp_path / "run", num_updates=3)
    table = (run.folder / PARTITION).read_text(encoding="utf-8").splitlines()
    head = table[0].split(",")
    head[1:] = ["\U0010f123 $x_1$", *head[2:]]
    (run.folder / PARTITION).write_text("\n".join([",".join(head), *table[1:]]), encoding="utf-8")
    fedsim.draw(run)
    assert not recwarn.list
    page = (run.folder / "figures" / "index.html").read_text(encoding="utf-8")
    assert page.count("no installed font has") == 1
