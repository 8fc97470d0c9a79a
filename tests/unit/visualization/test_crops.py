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
    sheet = draw_crops(crops, torch.tensor([0, 1, 1]), CLASSES, probabilities)
    assert sheet.dtype == np.uint8
    assert shows(sheet, (0, 0, 250)) and shows(sheet, RIGHT) and not shows(sheet, WRONG)
    assert shows(draw_crops(crops, [2, 1, 1], CLASSES, probabilities), WRONG)


@pytest.mark.parametrize('count', [0, 1, 9])
def test_without_teacher_or_objects(count):
    crops = torch.full((count, 3, 48, 48), 300.0) * (-1) ** torch.arange(count)[:, None, None, None]
    sheet = draw_crops(crops.requires_grad_(), [-1] * count, CLASSES)
    assert sheet.ndim == 3 and not shows(sheet, RIGHT) and not shows(sheet, WRONG)


def test_fewer_classes_than_answers_and_uint8():
    crops = torch.randint(0, 256, (2, 3, 200, 200), dtype=torch.uint8)
    sheet = draw_crops(crops, [0, 1], ['a', 'b'], torch.tensor([[0.9, 0.1], [0.9, 0.1]]))
    assert shows(sheet, RIGHT) and shows(sheet, WRONG)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match='2 crops'):
        draw_crops(torch.zeros(2, 3, 8, 8), [0], CLASSES)
