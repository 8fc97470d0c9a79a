import numpy as np
import pytest

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
    with pytest.raises(ValueError, match='at least one'):
        tile([], columns=3)


def test_title_stands_above():
    picture = with_title(np.zeros((10, 90, 3), np.uint8), 'title')
    assert picture.shape[1] == 90 and not picture[-10:].any() and (picture[:-10] < 100).any()
