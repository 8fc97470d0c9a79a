"""Detection from Python."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmdet.apis import inference_detector, init_detector
from mmdet.config.resolve import merge_config
from mmdet.config.schedule import apply_short_keys, input_size
from mmdet.datasets import BadImageError
from mmdet.structures import DetDataSample
from tests.helpers.tiny_run import PLAIN, save_detector

CLASSES = ['ant', 'bee', 'cat']


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_detector(tmp_path / 'x.pth', classes=CLASSES)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'photo.png'), noise)
    return tmp_path / 'photo.png'


def test_one_image_several_images_and_arrays_agree(checkpoint: Path, photo: Path) -> None:
    model = init_detector(PLAIN, checkpoint, 'cpu')
    assert model.dataset_meta == {'classes': tuple(CLASSES), 'category_ids': (1, 2, 3)}
    one = inference_detector(model, str(photo))
    assert isinstance(one, DetDataSample)
    assert one.img_path == str(photo)
    assert one.ori_shape == (90, 160)
    found = one.pred_instances
    assert len(found) > 0
    assert (found.labels < 3).all()
    assert (found.scores.diff() <= 0).all()
    assert (found.bboxes >= 0).all()
    assert found.bboxes[:, 2].max() <= 160
    assert found.bboxes[:, 3].max() <= 90
    for other in inference_detector(model, [photo, cv2.imread(str(photo)), Image.open(photo)]):
        torch.testing.assert_close(other.pred_instances.bboxes, found.bboxes, rtol=1e-4, atol=1e-2)
    assert inference_detector(model, []) == []


def test_the_input_size_of_the_training(
    checkpoint: Path, photo: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """The short key resizes images, and anchors with them; another size than in training is told."""
    options = {'input_size': [64, 48]}
    ours = merge_config(PLAIN, options)
    apply_short_keys(ours)
    model = init_detector(PLAIN, checkpoint, 'cpu', options)
    assert model.cfg.model.bbox_head.anchor_generator == ours.model.bbox_head.anchor_generator
    assert input_size(model.cfg) == [64, 48]
    assert inference_detector(model, photo).ori_shape == (90, 160)
    content = torch.load(checkpoint)
    content['meta']['input_size'] = [64, 48]
    torch.save(content, checkpoint)
    init_detector(PLAIN, checkpoint, 'cpu', options)
    assert not recwarn
    with pytest.warns(UserWarning, match=r'trained for an input of 64 x 48 pixels.*input_size=64,48'):
        init_detector(PLAIN, checkpoint, 'cpu')


def test_images_that_are_none(checkpoint: Path, tmp_path: Path) -> None:
    model = init_detector(PLAIN, checkpoint, 'cpu')
    with pytest.raises(BadImageError, match=r'no\.jpg: the file is missing'):
        inference_detector(model, tmp_path / 'no.jpg')
    with pytest.raises(ValueError, match='more than 8 bits'):
        inference_detector(model, Image.new('I;16', (4, 4)))
    with pytest.raises(ValueError, match='uint8'):
        inference_detector(model, np.zeros((4, 4), np.float32))


def test_without_a_checkpoint_classes_are_numbers() -> None:
    model = init_detector(PLAIN, device='cpu', cfg_options={'model.bbox_head.num_classes': 2})
    assert model.dataset_meta == {'classes': ('0', '1'), 'category_ids': (1, 2)}
    assert not model.training


def test_classes_of_weights_that_name_none(checkpoint: Path, tmp_path: Path) -> None:
    torch.save(torch.load(checkpoint)['state_dict'], tmp_path / 'bare.pth')
    model = init_detector(PLAIN, tmp_path / 'bare.pth', 'cpu', {'classes': CLASSES})
    assert model.dataset_meta['classes'] == tuple(CLASSES)


def test_options_for_a_config_that_is_read_already(checkpoint: Path) -> None:
    cfg = merge_config(PLAIN)
    options = {'model.bbox_head.postprocess.score_thr': 0.6, 'input_size': 64}
    assert init_detector(cfg, checkpoint, 'cpu', options).head.postprocess.score_thr == 0.6
    assert cfg.model.bbox_head.postprocess.score_thr != 0.6


def test_images_are_padded_as_in_a_test(photo: Path) -> None:
    """To a multiple of 32 where the aspect ratio is kept."""
    options = {'input_size': [100, 60]}
    model = init_detector('retinanet/retinanet_mobilenet_v2_fpn.py', None, 'cpu', options)
    shapes = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape[2:]))
    inference_detector(model, photo)
    assert shapes == [(64, 128)]
