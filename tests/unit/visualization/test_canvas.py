from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from mmdet.visualization import canvas
from mmdet.visualization.canvas import fit_text, text_width, tile, with_title, write_text


def test_text_is_made_smaller_then_shorter():
    assert fit_text('dog', 200, 14) == ('dog', 14)
    text, size = fit_text('refrigerator', 60, 14)
    assert text == 'refrigerator' and size < 14
    text, size = fit_text('refrigerator', 40, 14, tail=' 0.93')
    assert text.endswith('… 0.93') and text_width(text, size) <= 40
    assert fit_text('refrigerator', 2, 14)[0] == ''


@pytest.mark.parametrize('place', [(0, 0), (-8, -5), (45, 15), (100, 100), (-300, 0)])
def test_text_beyond_the_border_is_no_error(place):
    picture = np.full((20, 50, 3), 255, np.uint8)
    write_text(picture, 'Straße ≥ 5', *place, 12)
    assert picture.shape == (20, 50, 3)
    assert (picture < 128).any() == (place in [(0, 0), (-8, -5), (45, 15)])


def test_sheet_holds_every_picture():
    shapes = [(10, 20), (30, 5), (8, 8), (4, 40), (16, 16)]
    pictures = [np.full((*shape, 3), number, np.uint8) for number, shape in enumerate(shapes)]
    sheet = tile(pictures, columns=3, gap=4)
    for number, (height, width) in enumerate(shapes):
        assert (sheet == number).all(-1).sum() == height * width


@pytest.mark.parametrize(('width', 'title'), [(90, 'title'), (60, 'a title that is too long for it')])
def test_title_stands_above(width: int, title: str):
    picture = with_title(np.zeros((10, width, 3), np.uint8), title)
    assert picture.shape[1] == width and not picture[-10:].any() and (picture[:-10] < 100).any()


@pytest.fixture
def other_font(tmp_path: Path) -> str:
    """A font in which the letters of '蟻 0.9' are filled squares."""
    letters = '蟻 0.9'
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = ['.notdef', *(f'u{ord(letter):04X}' for letter in letters)]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap(dict(zip(map(ord, letters), names[1:], strict=True)))
    font.setupGlyf(dict.fromkeys(names, pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({'familyName': 'Other', 'styleName': 'Regular'})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / 'other.ttf')
    return str(tmp_path / 'other.ttf')


def test_a_name_is_written_in_a_font_that_has_its_letters(other_font, monkeypatch, capsys):
    def written(*fonts: str) -> np.ndarray:
        monkeypatch.setattr('matplotlib.font_manager.findSystemFonts', lambda: [*fonts])
        for cached in (canvas._font, canvas._find_font, canvas._note_missing_letters):
            cached.cache_clear()
        picture = np.full((60, 200, 3), 255, np.uint8)
        write_text(picture, '蟻 0.9', 0, 0, 20)
        write_text(picture, '0.9', 0, 30, 20)
        return picture

    without = written()
    assert capsys.readouterr().err.count('no font of this machine has all letters') == 1
    found = written(other_font)
    assert not capsys.readouterr().err
    assert (found[:30] < 128).mean() > 1.5 * (without[:30] < 128).mean()
    assert (found[30:] == without[30:]).all()  # other texts stay in the usual font
