"""CocoDataset: what it reads, and every fault of the data."""

import json
import logging
import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks.reference.augmentation import PIPELINE, TEST_PIPELINE
from mmdet.datasets import BadImage, BadImageError, DetSampler, collate_detection, init_worker
from mmdet.registry import DATASETS, TRANSFORMS
from mmdet.structures import EncodedImages


def build(root, split='train', pipeline=PIPELINE, **kwargs):
    config = {
        'type': 'CocoDataset',
        'data_root': str(root),
        'ann_file': f'annotations/{split}.json',
        'data_prefix': {'img': f'{split}/'},
        'pipeline': pipeline,
    }
    return DATASETS.build({**config, **kwargs})


@pytest.fixture
def edited(tiny_coco):
    """A set of 4 images whose annotation file was changed by a function of its content."""

    def edit(change, **kwargs):
        root = tiny_coco(**kwargs)
        file = root / 'annotations/train.json'
        content = json.loads(file.read_text())
        content = change(content) or content
        file.write_text(json.dumps(content))
        return root

    return edit


def boxes_of(dataset, row=0):
    return dataset._results(row, 0)['annotations'][0].tolist()


# What is read


def test_objects_and_how_often_an_epoch_shows_each_class(edited):
    """Image 1 holds two bricks, image 2 a brick and a leaf, image 3 nothing, image 4 a crowd of leaves."""

    def change(content):
        first = content['annotations'][0]
        content['annotations'] = [
            {**first, 'id': i, 'image_id': image, 'category_id': category, 'iscrowd': crowd}
            for i, (image, category, crowd) in enumerate(
                [(2, 1, 0), (1, 1, 0), (2, 3, 0), (1, 1, 0), (4, 3, 1)]
            )
        ]

    dataset = build(edited(change))
    labels, images = dataset.objects()
    assert sorted(zip(images.tolist(), labels.tolist(), strict=True)) == [(0, 0), (0, 0), (1, 0), (1, 1)]
    assert table_rows(dataset.class_table()) == [
        ['class', 'images', 'objects'],
        ['brick', '2', '3'],
        ['leaf', '1', '1'],
        ['pond', '0', '0'],
        ['all', '2', '4'],
    ]
    shown = table_rows(dataset.class_table(np.array([1, 5, 1, 1])))
    assert [row[-1] for row in shown] == ['objects per epoch', '7', '5', '0', '12']
    assert 'train.json, 1 crowds left out' in dataset.class_table()


def table_rows(text):
    lines = [line for line in text.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]


def test_annotations_become_flat_arrays(tiny_coco):
    root = tiny_coco(images=5, objects=3, empty=1)
    dataset = build(root)
    content = json.loads((root / 'annotations/train.json').read_text())
    assert len(dataset) == 5
    ids = {one['name']: one['id'] for one in content['categories']}
    for classes in (('brick', 'leaf', 'pond'), ('pond', 'leaf')):
        expected = {'classes': classes, 'category_ids': tuple(ids[name] for name in classes)}
        assert build(root, metainfo={'classes': classes}).metainfo == expected
    assert dataset.metainfo['classes'] == ('brick', 'leaf', 'pond')
    assert dataset.img_ids.tolist() == [1, 2, 3, 4, 5]
    assert dataset.image_file(2) == root / 'train/2.jpg'
    assert dataset.faults == []
    for row in range(5):
        bboxes, labels, ann_ids = dataset._results(row, 0)['annotations']
        expected = [entry for entry in content['annotations'] if entry['image_id'] == row + 1]
        assert ann_ids.tolist() == [entry['id'] for entry in expected]
        assert labels.tolist() == [(entry['category_id'] - 1) // 2 for entry in expected]
        xywh = np.concatenate([bboxes[:, :2], bboxes[:, 2:] - bboxes[:, :2]], 1)
        assert xywh.tolist() == [entry['bbox'] for entry in expected]
    assert not any(isinstance(value, list) and value for value in vars(dataset).values())


def test_sample(tiny_coco):
    sample = build(tiny_coco())[0, 11]
    assert sample['img'].shape == (3, 300, 300)
    assert sample['img'].dtype == torch.uint8
    assert sample['img'].is_contiguous()
    assert sample['bboxes'].dtype == torch.float32
    assert sample['labels'].dtype == torch.int64
    assert sample['img_id'] == 1
    assert sample['ori_shape'] == (96, 128)
    assert sample['img_shape'] == (300, 300)


def test_images_without_boxes(tiny_coco):
    root = tiny_coco(images=6, empty=2)
    assert len(build(root)) == 6
    assert build(root, filter_empty_gt=True).img_ids.tolist() == [1, 2, 3, 4]
    assert len(build(root, filter_empty_gt=True, test_mode=True)) == 6
    samples = [build(root)[5, draw] for draw in range(20)]
    assert all(sample['bboxes'].shape == (0, 4) for sample in samples)


def test_filtered_images_keep_their_boxes(edited):
    def empty_second(content):
        content['annotations'] = [entry for entry in content['annotations'] if entry['image_id'] != 2]

    root = edited(empty_second)
    every, filtered = build(root), build(root, filter_empty_gt=True)
    assert filtered.img_ids.tolist() == [1, 3, 4]
    assert [boxes_of(filtered, row) for row in range(3)] == [boxes_of(every, row) for row in (0, 2, 3)]


def test_missing_files_and_folders(tiny_coco, tmp_path):
    root = tiny_coco()
    with pytest.raises(FileNotFoundError, match=r'nowhere: there is no such folder.*--data-root'):
        build(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match=r'photos: there is no such folder.*train_img'):
        build(root, data_prefix={'img': 'photos'})


def test_no_box_at_all(tiny_coco):
    root = tiny_coco(empty=4)
    for filtered in (True, False):
        with pytest.raises(ValueError, match=r'no image has a box.*list of annotations is empty'):
            build(root, filter_empty_gt=filtered)
    assert len(build(root, test_mode=True)) == 4


def test_without_one_of_its_images(tiny_coco):
    root = tiny_coco()
    for test_mode in (True, False):
        with pytest.raises(FileNotFoundError, match=r'none of the 4 images of .*json, such as .*1\.jpg'):
            build(root, data_prefix={'img': ''}, on_bad_image='skip', test_mode=test_mode)
    (root / 'train').rename(root / 'train_photos')
    with pytest.raises(FileNotFoundError, match=rf'Did you mean {root}/train_photos/1.jpg\?.*train_img='):
        build(root, data_prefix={'img': ''})


def test_a_missing_image_is_compared_with_what_is_there(edited):
    def on_windows(content):
        content['images'][1]['file_name'] = 'sub\\2.jpg'

    root = edited(on_windows)
    (root / 'train/sub').mkdir()
    (root / 'train/2.jpg').rename(root / 'train/sub/2.jpg')
    with pytest.raises(BadImageError, match=rf'missing\. Did you mean {root}/train/sub/2\.jpg\? Mend'):
        build(root)[1]
    assert build(root).read_image_fault(2) == 'the file is missing'


def test_advice_stops_a_training_and_is_logged_of_a_test(edited, monkeypatch):
    """The advice itself: test_training_boxes.py."""

    def crowds(content):
        for one in content['annotations']:
            one['iscrowd'] = 1

    root, lines = edited(crowds), []
    with pytest.raises(ValueError, match=r'no image has a box .*: 12 crowd\. .* set iscrowd to 0'):
        build(root)
    monkeypatch.setattr('mmdet.datasets.coco.print_log', lambda *words: lines.append(words))
    assert build(root, test_mode=True).advice == lines[1][0]
    assert lines[1][2] == logging.WARNING


def test_unknown_values(tiny_coco):
    with pytest.raises(ValueError, match="'fail' or 'skip'"):
        build(tiny_coco(), on_bad_image='ignore')
    for flag in ('filter_empty_gt', 'test_mode'):
        with pytest.raises(ValueError, match=f"{flag} must be True or False, but is 'no'"):
            build(tiny_coco(), **{flag: 'no'})
    with pytest.raises(ValueError, match="must be 'worker' or 'device', but is 'gpu'"):
        TRANSFORMS.build({'type': 'PackDetInputs', 'decode': 'gpu'})


# Image files


def truncate(root, *img_ids):
    for img_id in img_ids:
        file = root / f'train/{img_id}.jpg'
        file.write_bytes(file.read_bytes()[:-20])


def test_bad_image(tiny_coco):
    root = tiny_coco()
    truncate(root, 2)
    dataset = build(root)
    assert dataset[0, 5]['img_id'] == 1
    remedy = 'train_dataloader.dataset.on_bad_image=skip'
    with pytest.raises(BadImageError, match=rf'2\.jpg \(image 2 of .*truncated.*{remedy}'):
        dataset[1, 5]
    with pytest.raises(BadImageError, match=r'test_dataloader\.dataset\.on_bad_image=skip'):
        build(root, pipeline=TEST_PIPELINE, test_mode=True)[1]
    skipped = build(root, on_bad_image='skip')[1, 5]
    assert skipped == BadImage(2, str(root / 'train/2.jpg'), 'the file is truncated', (300, 300))
    assert dataset.image_file(2) == root / 'train/2.jpg'
    assert dataset.read_image_fault(2) == 'the file is truncated'
    assert dataset.read_image_fault(1) is None


def test_the_error_can_leave_a_worker(tiny_coco):
    """A worker pickles it and raises it again with one text."""
    root = tiny_coco()
    truncate(root, 1)
    with pytest.raises(BadImageError) as caught:
        build(root)[0]
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) == str(BadImageError(str(caught.value)))


def test_bad_images_through_a_loader(tiny_coco):
    root = tiny_coco(images=5)
    truncate(root, 1, 2, 5)
    loader = DataLoader(build(root, on_bad_image='skip'), 2, num_workers=2, collate_fn=collate_detection)
    batches = list(loader)
    assert [batch['gt'].img_id.tolist() for batch in batches] == [[-1], [3, 4], [-1]]
    assert [[bad.img_id for bad in batch['bad_images']] for batch in batches] == [[1, 2], [], [5]]
    assert all(batch['inputs'].shape[2:] == (300, 300) for batch in batches)


def test_unknown_image_and_index(tiny_coco):
    dataset = build(tiny_coco())
    with pytest.raises(KeyError, match='no image 77'):
        dataset.image_file(77)
    for row in (4, -1):
        with pytest.raises(IndexError):
            dataset[row]


# A sample is a function of (seed, draw)


def load(dataset, num_workers):
    sampler = DetSampler(dataset, shuffle=True, seed=4, times=2)
    sampler.set_epoch(3)
    loader = DataLoader(
        dataset,
        batch_size=3,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate_detection,
        worker_init_fn=init_worker,
    )
    return list(loader)


def same(first, second):
    def tensors(batches):
        for batch in batches:
            inputs = batch['inputs']
            yield from inputs[:-1] if isinstance(inputs, EncodedImages) else [inputs]
            yield from batch['gt']

    return all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))


@pytest.mark.filterwarnings('ignore:This DataLoader will create')
@pytest.mark.parametrize('decode', ['worker', 'device'])
def test_samples_are_functions_of_seed_and_draw_for_any_number_of_workers(tiny_coco, decode):
    root = tiny_coco(images=5, empty=1)
    truncate(root, 2)
    pipeline = [*PIPELINE[:-1], {'type': 'PackDetInputs', 'decode': decode}]
    dataset = build(root, seed=9, pipeline=pipeline, on_bad_image='skip')
    alone = load(dataset, 0)
    assert same(alone, load(dataset, 3))
    assert not same(alone, load(build(root, seed=10, pipeline=pipeline, on_bad_image='skip'), 0))
    assert sum(len(batch['bad_images']) for batch in alone) == 2  # each image twice
    assert {tuple(batch['inputs'].shape[-2:]) for batch in alone} == {(300, 300)}


def test_global_generators_neither_matter_nor_move(tiny_coco):
    dataset = build(tiny_coco())
    samples = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
        samples.append([dataset[row, draw] for row in range(4) for draw in range(5)])
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
        assert before == after
    for first, second in zip(*samples, strict=True):
        assert torch.equal(first['img'], second['img'])
        assert torch.equal(first['bboxes'], second['bboxes'])


def test_reading_changes_nothing(tiny_coco):
    dataset = build(tiny_coco(), pipeline=[PIPELINE[0], PIPELINE[1], PIPELINE[-1]])
    before = boxes_of(dataset)
    dataset[0]['bboxes'].zero_()
    assert boxes_of(dataset) == before


# Real photos


def test_coco_mini(shared_data):
    root = shared_data('coco-mini')
    kwargs = {'ann_file': 'annotations/instances_train2017.json', 'data_prefix': {'img': 'train2017/'}}
    dataset = build(root, **kwargs, filter_empty_gt=True)
    content = json.loads((root / 'annotations/instances_train2017.json').read_text())
    crowds = sum(entry['iscrowd'] for entry in content['annotations'])
    assert len(dataset) == 80
    assert crowds == 8
    assert sum(len(boxes_of(dataset, row)) for row in range(80)) == len(content['annotations']) - crowds
    assert len(dataset.metainfo['classes']) == 80
    assert dataset.faults == []
    for row in range(0, 80, 4):
        sample = dataset[row, 1000 + row]
        assert sample['img'].shape == (3, 300, 300)
        assert sample['labels'].max() < 80
    assert [dataset.read_image_fault(int(img_id)) for img_id in dataset.img_ids] == [None] * 80


@pytest.mark.parametrize('name', ['bccd', 'fod'])
def test_other_real_sets(shared_data, name):
    root = shared_data(name)
    dataset = build(root, ann_file='annotations/instances_val.json', data_prefix={'img': 'val/'})
    assert len(dataset) > 50
    for row in range(0, len(dataset), len(dataset) // 10):
        assert dataset[row]['img'].shape == (3, 300, 300)
