"""Batches."""

import torch

from mmdet.datasets import BadImage, collate_detection


def sample(height, width, boxes, img_id=1):
    generator = torch.Generator().manual_seed(img_id)
    corners = torch.rand(boxes, 2, generator=generator) * 10
    return {
        'img': torch.randint(1, 256, (3, height, width), dtype=torch.uint8, generator=generator),
        'bboxes': torch.cat([corners, corners + 5], 1),
        'labels': torch.arange(boxes),
        'ann_ids': 100 + torch.arange(boxes),
        'img_id': img_id,
        'ori_shape': (2 * height, 2 * width),
        'img_shape': (height, width),
    }


def test_padding_of_images_and_boxes():
    samples = [sample(30, 40, 3, 1), sample(50, 20, 17, 2), sample(10, 10, 0, 3)]
    batch = collate_detection(samples, pad_size_divisor=32)
    inputs, gt = batch['inputs'], batch['gt']
    assert inputs.shape == (3, 3, 64, 64)
    assert inputs.dtype == torch.uint8
    assert gt.bboxes.shape == (3, 32, 4)
    for i, (expected, (h, w)) in enumerate(zip(samples, ((30, 40), (50, 20), (10, 10)), strict=True)):
        assert (inputs[i, :, :h, :w] == expected['img']).all()
        assert inputs[i].sum() == expected['img'].sum()
        assert (gt.bboxes[i][gt.valid[i]] == expected['bboxes']).all()
        assert (gt.labels[i][gt.valid[i]] == expected['labels']).all()
        assert (gt.ann_ids[i][gt.valid[i]] == expected['ann_ids']).all()
    assert gt.valid.sum(1).tolist() == [3, 17, 0]
    assert not gt.bboxes[~gt.valid].any()
    assert gt.img_id.tolist() == [1, 2, 3]
    assert gt.ori_shape.tolist() == [[60, 80], [100, 40], [20, 20]]
    assert gt.img_shape.tolist() == [[30, 40], [50, 20], [10, 10]]
    dtypes = [torch.int64] * 3 + [torch.float32, torch.int64, torch.bool, torch.int64]
    assert [part.dtype for part in gt] == dtypes


def test_rows_come_in_sixteens_and_images_need_no_padding():
    for boxes, rows in ((0, 16), (1, 16), (16, 16), (17, 32)):
        batch = collate_detection([sample(30, 41, boxes)])
        assert batch['gt'].bboxes.shape == (1, rows, 4)
        assert batch['inputs'].shape == (1, 3, 30, 41)


def test_bad_images_are_left_out():
    bad = BadImage(7, '7.jpg', 'the file is empty', (30, 40))
    batch = collate_detection([sample(30, 40, 2, 1), bad, sample(30, 40, 2, 2)])
    assert batch['gt'].img_id.tolist() == [1, 2]
    assert batch['bad_images'] == [bad]


def test_a_batch_of_bad_images_is_one_blank_image():
    bad = [BadImage(7, '7.jpg', 'the file is empty', (300, 300)), BadImage(8, '8.jpg', 'missing', (300, 300))]
    batch = collate_detection(bad, pad_size_divisor=32)
    assert batch['inputs'].shape == (1, 3, 320, 320)
    assert not batch['inputs'].any()
    assert not batch['gt'].valid.any()
    assert batch['gt'].img_id.tolist() == [-1]
    assert batch['gt'].img_shape.tolist() == [[300, 300]]
    assert batch['bad_images'] == bad
