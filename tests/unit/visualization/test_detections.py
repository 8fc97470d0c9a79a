import numpy as np
import pytest
import torch

from mmdet.visualization.detections import class_color, draw_detections

GRAY = np.full((200, 300, 3), 128, np.uint8)


def has_color(picture, label):
    return bool((picture == np.array(class_color(label), np.uint8)).all(-1).any())


def test_draws_what_is_sure_enough_on_a_copy():
    boxes = torch.tensor([[20.0, 40, 120, 160], [150, 40, 260, 160]])
    picture = draw_detections(GRAY, boxes, torch.tensor([0, 4]), torch.tensor([0.9, 0.2]), ['cat'], 0.3)
    assert picture.shape == GRAY.shape and picture.dtype == np.uint8
    assert has_color(picture, 0) and not has_color(picture, 4)
    assert (GRAY == 128).all()
    assert has_color(draw_detections(GRAY, boxes, torch.tensor([0, 4])), 4)  # without scores: all


@pytest.mark.parametrize('kind', [torch.tensor, np.array, list])
def test_takes_tensors_arrays_and_lists(kind):
    picture = draw_detections(GRAY, kind([[20.0, 40, 120, 160]]), kind([2]), kind([0.5]), ['a', 'b', 'c'])
    assert has_color(picture, 2)


def test_no_boxes_and_senseless_boxes_change_nothing():
    assert (draw_detections(GRAY, np.zeros((0, 4)), [], []) == GRAY).all()
    senseless = [[np.nan, 0, 50, 50], [-90, -90, -10, -10], [400, 20, 500, 90], [50, 50, 50, 90]]
    assert (draw_detections(GRAY, senseless, [0, 1, 2, 3], [1, 1, 1, 1]) == GRAY).all()


@pytest.mark.parametrize('box', [[0, 0, 30, 20], [280, 0, 300, 30], [0, 180, 20, 200], [290, 190, 310, 230]])
def test_label_is_whole_at_every_border(box):
    middle = draw_detections(GRAY, [[100, 100, 100 + 20, 100 + 20]], [3], [0.5], list('abcd'))
    area = (middle == np.array(class_color(3), np.uint8)).all(-1).sum()
    corner = draw_detections(GRAY, [box], [3], [0.5], list('abcd'))
    assert (corner == np.array(class_color(3), np.uint8)).all(-1).sum() > 0.6 * area


@pytest.mark.parametrize('size', [(1, 1), (5, 40), (40, 5), (12, 20)])
def test_tiny_pictures_and_long_names(size):
    image = np.zeros((*size, 3), np.uint8)
    picture = draw_detections(image, [[0, 0, size[1], size[0]]], [0], [1.0], ['a name that is far too long'])
    assert picture.shape == image.shape


def test_lengths_must_agree():
    with pytest.raises(ValueError, match='2 boxes'):
        draw_detections(GRAY, np.zeros((2, 4)), [0], [0.5, 0.5])


def test_colors_differ_between_classes():
    colors = {class_color(label) for label in range(80)}
    assert len(colors) == 80
