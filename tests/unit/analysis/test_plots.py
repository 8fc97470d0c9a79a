import cv2
import numpy as np
import pytest

from mmdet.analysis.plots import plot_errors, plot_lines, plot_seeds

ERRORS = {'cls': 3.0, 'loc': 2.0, 'missed': 1.0, 'false_positive': 9.0, 'false_negative': 4.0}


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('rows', [1, 5])
def test_pictures_of_few_and_of_many_rows(tmp_path, rows):
    names = [f'row {number}' for number in range(rows)]
    seeds = {name: {seed: 20.0 + seed + number for seed in range(rows)} for number, name in enumerate(names)}
    pictures = [
        plot_seeds(seeds, 'AP, %', tmp_path / 'new' / 'ap.png'),
        plot_lines(
            {name: [2.0, 1.0, 0.0] for name in names}, ('0.50', '0.55', '0.60'), 'AP', tmp_path / 'iou.png'
        ),
        plot_errors(dict.fromkeys(names, ERRORS), 'AP50', tmp_path / 'errors.png'),
    ]
    for picture in map(cv2.imread, map(str, pictures)):
        assert min(picture.shape[:2]) > 400 and picture.std() > 10


def test_seeds_keep_their_colors_and_may_be_missing(tmp_path):
    whole = plot_seeds({'plain': {0: 20.0, 1: 22.0}, 'all': {0: 23.0, 1: 24.0}}, 'AP, %', tmp_path / 'a.png')
    part = plot_seeds({'plain': {0: 20.0, 1: 22.0}, 'all': {1: 24.0}}, 'AP, %', tmp_path / 'b.png')
    blue = [(cv2.imread(str(file)) == (0xA8, 0x5F, 0x1F)).all(-1).sum() for file in (whole, part)]
    orange = [(cv2.imread(str(file)) == (0x2B, 0x62, 0xD9)).all(-1).sum() for file in (whole, part)]
    assert blue[0] > blue[1] > 0  # one dot of seed 0 less
    np.testing.assert_allclose(orange[0], orange[1], rtol=0.05)
