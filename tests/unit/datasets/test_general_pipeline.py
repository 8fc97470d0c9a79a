"""Photos that keep their shape, padded to a batch, and the crops that a teacher gets of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdet.config.resolve import load_config
from mmdet.engine import DetRunner
from mmdet.registry import MODELS
from mmdet.structures import crop_boxes
from tests.helpers.tiny_run import CLASSES, ROOT, SPLITS

CONFIG = ROOT / 'configs_dev/teachers/resnet50_general.py'
SHAPES = {1: (800, 1067), 2: (800, 1067), 11: (1333, 750)}  # of photos of 96 x 128 and of 128 x 72 (h, w)


@pytest.fixture
def root(tiny_coco, tmp_path: Path) -> Path:
    """Two wide photos, the second without objects, and a tall one whose object fills it."""
    root = tiny_coco(images=2, size=(96, 128), objects=1, empty=1, root=tmp_path / 'set')
    tall = tiny_coco(images=1, size=(128, 72), objects=1, seed=1, root=tmp_path / 'tall')
    file = root / 'annotations/train.json'
    content, other = (json.loads((at / 'annotations/train.json').read_text()) for at in (root, tall))
    shutil.copy(tall / 'train/1.jpg', root / 'train/11.jpg')
    content['images'].append({**other['images'][0], 'id': 11, 'file_name': '11.jpg'})
    whole = {'id': 11, 'image_id': 11, 'bbox': [0.0, 0.0, 72.0, 128.0]}
    content['annotations'].append({**other['annotations'][0], **whole})
    file.write_text(json.dumps(content))
    shutil.copytree(root / 'train', root / 'val')
    shutil.copy(file, root / 'annotations/val.json')
    return root


@pytest.mark.parametrize('split', ['train', 'val'])
def test_crops_of_a_padded_batch_are_those_of_each_photo_alone(root: Path, split: str) -> None:
    options = {
        **SPLITS,
        'model.arch': 'resnet18',
        'train_dataloader.dataset.filter_empty_gt': False,
        'model.box_jitter': 0.0,
    }
    cfg = load_config(CONFIG, options, root)
    loader_cfg = {**cfg[f'{split}_dataloader'], 'batch_size': 3, 'num_workers': 0}
    (data,) = DetRunner.build_dataloader(loader_cfg, seed=0)
    assert data['inputs'].shape == (3, 3, 1344, 1088)  # multiples of 32
    gt = data['gt']
    assert {int(i): tuple(s) for i, s in zip(gt.img_id, gt.img_shape.tolist(), strict=True)} == SHAPES

    model = MODELS.build(cfg.model)
    processed = model.data_preprocessor(data)
    crops, kept = model.crop(**processed)
    assert gt.img_id[kept.gt_image].sort().values.tolist() == [1, 11]  # photo 2 is in the batch all the same
    for crop, box, image in zip(crops, kept.gt_bboxes, kept.gt_image, strict=True):
        height, width = gt.img_shape[image].tolist()
        assert not processed['inputs'][image, :, height:].any()
        assert not processed['inputs'][image, :, :, width:].any()
        alone = processed['inputs'][image : image + 1, :, :height, :width]
        by_itself = crop_boxes(alone, box[None], torch.tensor([0]), 112)[0]
        torch.testing.assert_close(crop, by_itself, rtol=0, atol=2e-3)
    assert torch.isfinite(model.train()(**processed, mode='loss')['loss_focal'])


def test_the_middle_of_a_crop_has_the_color_of_its_class(root: Path) -> None:
    """Boxes follow the photo through resize and flip."""
    colors = np.random.default_rng(7).integers(0, 256, (len(CLASSES), 3))  # BGR, see tiny_coco
    for box_file in (root / 'annotations').iterdir():
        content = json.loads(box_file.read_text())
        content['annotations'] = [entry for entry in content['annotations'] if entry['image_id'] == 1]
        content['images'] = [entry for entry in content['images'] if entry['id'] == 1]
        box_file.write_text(json.dumps(content))
    cfg = load_config(CONFIG, {**SPLITS, 'model.arch': 'resnet18'}, root)
    loader = DetRunner.build_dataloader({**cfg.train_dataloader, 'batch_size': 1, 'num_workers': 0}, seed=0)
    model = MODELS.build(cfg.model).train()
    lefts = set()
    for epoch in range(6):
        loader.sampler.set_epoch(epoch)
        (data,) = loader
        crops, kept = model.crop(**model.data_preprocessor(data))
        lefts.add(round(float(data['gt'].gt_bboxes[0, 0])))
        mean, std = (three.numpy() for three in model.normalization)
        middle = (crops[0, :, 50:62, 50:62].mean((1, 2)).numpy() * std + mean)[::-1]
        np.testing.assert_allclose(middle, colors[int(kept.gt_labels[0])], atol=6)
    assert len(lefts) == 2  # mirrored and not
