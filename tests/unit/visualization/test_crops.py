import numpy as np
import pytest
import torch

from mmdet.visualization.crops import RIGHT, WRONG, draw_crops

CLASSES = ['ball', 'a class with a name that is far too long for a column', 'star', 'mug']


def shows(sheet, color):
    return bool((sheet == np.array(color, np.uint8)).all(-1).any())


def test_crops_are_rgb_and_answers_are_marked():
    crops = torch.zeros(3, 3, 32, 32)
    crops[:, 0] = 250.0  # red
    probabilities = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.6, 0.2, 0.1], [0.0, 0.9, 0.1, 0.0]])
    sheet = draw_crops(crops, torch.tensor([0, 1, 1]), CLASSES, probabilities, CLASSES[:3])
    assert sheet.dtype == np.uint8
    assert shows(sheet, (0, 0, 250)) and shows(sheet, RIGHT) and not shows(sheet, WRONG)
    assert shows(draw_crops(crops, torch.tensor([2, 1, 1]), CLASSES, probabilities, CLASSES[:3]), WRONG)


@pytest.mark.parametrize('count', [1, 9])
def test_fewer_classes_than_answers_and_colors_out_of_range(count):
    crops = torch.full((count, 3, 200, 200), 300.0) * (-1) ** torch.arange(count)[:, None, None, None]
    sheet = draw_crops(
        crops, torch.zeros(count).long(), ['a', 'b'], torch.tensor([[0.1, 0.9]] * count), ['?'] * count
    )
    assert not shows(sheet, RIGHT) and shows(sheet, WRONG)
