"""CocoDataset: what it reads, and every fault of the data."""

import json
import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks.reference.augmentation import PIPELINE, TEST_PIPELINE
from mmdet.datasets import BadImage, BadImageError, DetSampler, coco, collate_detection, init_worker
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
    assert dataset.metainfo == {'classes': ('brick', 'leaf', 'pond')}
    assert dataset.img_ids.tolist() == [1, 2, 3, 4, 5]
    assert dataset.image_file(2) == root / 'train/2.jpg'
    assert dataset.faults == []
    for row in range(5):
        bboxes, labels = dataset._results(row, 0)['annotations']
        expected = [entry for entry in content['annotations'] if entry['image_id'] == row + 1]
        assert labels.tolist() == [(entry['category_id'] - 1) // 2 for entry in expected]
        xywh = np.concatenate([bboxes[:, :2], bboxes[:, 2:] - bboxes[:, :2]], 1)
        assert xywh.tolist() == [entry['bbox'] for entry in expected]
    assert not any(isinstance(value, list) and value for value in vars(dataset).values())


def test_annotations_in_any_order(edited):
    plain = build(edited(lambda content: content['annotations'].sort(key=lambda entry: entry['id'])))
    mixed = build(edited(lambda content: random.Random(0).shuffle(content['annotations'])))
    for row in range(4):
        assert sorted(boxes_of(plain, row)) == sorted(boxes_of(mixed, row))


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


def test_classes_by_name_in_any_order(tiny_coco):
    root = tiny_coco(images=8)
    every = build(root)
    chosen = build(root, metainfo={'classes': ['pond', 'brick']})
    for row in range(8):
        _, labels = every._results(row, 0)['annotations']
        _, ours = chosen._results(row, 0)['annotations']
        assert [{2: 0, 0: 1}[label] for label in labels.tolist() if label != 1] == ours.tolist()


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


def test_crowds_are_not_trained_on(tiny_coco):
    with_crowds = build(tiny_coco(images=4, objects=2, crowds=3))
    assert [len(boxes_of(with_crowds, row)) for row in range(4)] == [2, 2, 2, 2]


def test_images_with_crowds_alone_are_left_out(tiny_coco):
    dataset = build(tiny_coco(images=4, objects=2, empty=1, crowds=4), filter_empty_gt=True)
    assert dataset.img_ids.tolist() == [1, 2, 3]


def test_summary_line(tiny_coco, monkeypatch):
    lines = []
    monkeypatch.setattr(coco, 'print_log', lambda line, logger: lines.append(line))
    build(tiny_coco(images=6, objects=2, empty=2, crowds=1), filter_empty_gt=True)
    assert '4 images, 8 boxes of 3 classes; dropped 0 boxes, clipped 0' in lines[0]
    assert 'passed over 1 crowds, left out 2 images without boxes' in lines[0]


def test_missing_files_and_folders(tiny_coco, tmp_path):
    root = tiny_coco()
    with pytest.raises(FileNotFoundError, match=r'nowhere: there is no such folder.*--data-root'):
        build(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match=r'photos: there is no such folder.*train_img'):
        build(root, data_prefix={'img': 'photos'})


def test_no_box_at_all(tiny_coco):
    root = tiny_coco(empty=4)
    with pytest.raises(ValueError, match=r'no image has a box.*filter_empty_gt=False'):
        build(root, filter_empty_gt=True)
    assert len(build(root)) == 4


def test_unknown_keys_and_values(tiny_coco):
    root = tiny_coco()
    with pytest.raises(TypeError, match='filter_cfg'):
        build(root, filter_cfg={})
    with pytest.raises(ValueError, match="'fail' or 'skip'"):
        build(root, on_bad_image='ignore')
    with pytest.raises(TypeError, match='ratio'):
        build(root, pipeline=[{'type': 'Expand', 'ratio': 4}])
    with pytest.raises(KeyError, match='Shrink'):
        build(root, pipeline=[{'type': 'Shrink'}])


# Image files


def damage(root, img_id, content):
    file = root / f'train/{img_id}.jpg'
    data = file.read_bytes()
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content(data))


DAMAGES = {
    'missing': None,
    'empty': lambda data: b'',
    'truncated': lambda data: data[: len(data) // 2],
    'not an image': lambda data: b'sorry, not found',
}


@pytest.mark.parametrize('reason', DAMAGES)
def test_bad_image(tiny_coco, reason):
    root = tiny_coco()
    damage(root, 2, DAMAGES[reason])
    dataset = build(root)
    assert dataset[0, 5]['img_id'] == 1
    remedy = 'train_dataloader.dataset.on_bad_image=skip'
    with pytest.raises(BadImageError, match=rf'2\.jpg \(image 2 of .*{reason}.*{remedy}'):
        dataset[1, 5]
    with pytest.raises(BadImageError, match=r'test_dataloader\.dataset\.on_bad_image=skip'):
        build(root, pipeline=TEST_PIPELINE, test_mode=True)[1]
    skipped = build(root, on_bad_image='skip')[1, 5]
    assert isinstance(skipped, BadImage)
    assert skipped.img_id == 2
    assert skipped.file == str(root / 'train/2.jpg') == str(dataset.image_file(2))
    assert reason in skipped.reason
    assert skipped.img_shape == (300, 300)
    assert reason in dataset.read_image_fault(2)
    assert dataset.read_image_fault(1) is None


def test_the_error_can_leave_a_worker(tiny_coco):
    """A worker pickles it and raises it again with one text."""
    root = tiny_coco()
    damage(root, 1, None)
    with pytest.raises(BadImageError) as caught:
        build(root)[0]
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) == str(BadImageError(str(caught.value)))


def test_image_of_another_size(edited):
    dataset = build(edited(lambda content: content['images'][0].update(width=200, height=100)))
    with pytest.raises(BadImageError, match=r'the image is 128 x 96.*annotation says 200 x 100'):
        dataset[0]


@pytest.mark.parametrize('num_workers', [0, 2])
def test_bad_images_through_a_loader(tiny_coco, num_workers):
    root = tiny_coco(images=5)
    for img_id in (1, 2, 5):
        damage(root, img_id, DAMAGES['truncated'])
    loader = DataLoader(
        build(root, on_bad_image='skip'), 2, num_workers=num_workers, collate_fn=collate_detection
    )
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
    return all(
        torch.equal(a['inputs'], b['inputs'])
        and all(torch.equal(x, y) for x, y in zip(a['gt'], b['gt'], strict=True))
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.filterwarnings('ignore:This DataLoader will create')
def test_same_samples_for_any_number_of_workers(tiny_coco):
    dataset = build(tiny_coco(images=5, empty=1), seed=9)
    alone = load(dataset, 0)
    assert same(alone, load(dataset, 1))
    assert same(alone, load(dataset, 3))
    assert not same(alone, load(build(tiny_coco(images=5, empty=1), seed=10), 0))


@pytest.mark.filterwarnings('ignore:This DataLoader will create')
def test_encoded_samples_are_functions_of_seed_and_draw_too(tiny_coco):
    """Where the device decodes, workers hand over files and numbers: the same for any number of them."""
    root = tiny_coco(images=5, empty=1)
    damage(root, 2, DAMAGES['truncated'])
    pipeline = [*PIPELINE[:-1], {'type': 'PackDetInputs', 'decode': 'device'}]
    dataset = build(root, seed=9, pipeline=pipeline, on_bad_image='skip')
    alone, more = load(dataset, 0), load(dataset, 2)
    for first, second in zip(alone, more, strict=True):
        assert isinstance(second['inputs'], EncodedImages)
        assert all(
            torch.equal(a, b) for a, b in zip(first['inputs'][:-1], second['inputs'][:-1], strict=True)
        )
        assert first['inputs'].shape == second['inputs'].shape == (300, 300)
        assert len(first['inputs'].lengths) == len(first['gt'].img_id)
    assert sum(len(batch['bad_images']) for batch in alone) == 2  # each image twice


def test_an_unknown_place_to_decode_is_refused():
    with pytest.raises(ValueError, match="must be 'worker' or 'device', but is 'gpu'"):
        TRANSFORMS.build({'type': 'PackDetInputs', 'decode': 'gpu'})


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
