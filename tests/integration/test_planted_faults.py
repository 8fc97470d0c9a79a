"""Planted faults, in the long part thousands, through training and evaluation: each is listed once."""

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from torch.utils.data import DataLoader

from mmdet.commands import check as check_dataset
from mmdet.commands import test as test_tool
from mmdet.engine import DetRunner
from tests.helpers.planted_faults import BAD, BY_ID, DROPPED, ODD, Expected, plant
from tests.helpers.tiny_run import PLAIN, as_arguments, be_quick, options_of, small_config, train

SIDE = 96  # of the network's input
SKIP = {'train_dataloader__dataset__on_bad_image': 'skip'}


class Planted(NamedTuple):
    root: Path
    splits: dict[str, Expected]

    def read(self, split: str) -> list[int]:
        """Ids of the images that are read: in a training those with boxes."""
        expected = self.splits[split]
        return expected.trained if split == 'train' else list(expected.images)

    def annotation_entries(self, split: str) -> set[tuple[Any, ...]]:
        return self.splits[split].annotation_entries

    def image_entries(self, split: str) -> set[tuple[Any, ...]]:
        return self.splits[split].image_entries(self.read(split))


@pytest.fixture(
    scope='module', params=[(120, 80), pytest.param((2000, 1000), marks=pytest.mark.long)], ids=str
)
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    root, (train_images, val_images) = tmp_path_factory.mktemp('planted'), request.param
    splits = {
        'train': plant(root, 'train', train_images, seed=3),
        'val': plant(root, 'val', val_images, seed=4),
    }
    return Planted(root, splits)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    be_quick(monkeypatch)
    monkeypatch.chdir(tmp_path)


def loader_of(planted: Planted, split: str, on_bad_image: str, **settings: Any) -> DataLoader:
    """The loader of a config, without random flips."""
    cfg = small_config(planted.root, Path('run'))
    loader = copy.deepcopy(cfg[f'{split}_dataloader'])
    loader.update(settings)
    loader.dataset.on_bad_image = on_bad_image
    for transform in loader.dataset.pipeline:
        if transform.type == 'RandomFlip':
            transform.prob = 0.0
    return DetRunner.build_dataloader(loader, seed=0)


def listed(
    file: Path, split: str, ann_file: str = ''
) -> tuple[Counter[tuple[Any, ...]], Counter[tuple[Any, ...]]]:
    """What a report lists of a split, and how often.

    Of the annotations (kind, image id, annotation id, reason), of the images (id, file, reason).
    """
    report = json.loads(file.read_text())
    annotations, images = (
        [entry for entry in report[section] if entry['split'] == split]
        for section in ('annotations', 'images')
    )
    assert all(entry['file'].endswith(f'annotations/{ann_file or split}.json') for entry in annotations)
    return (
        Counter((e['kind'], e['img_id'], e['ann_id'], e['reason']) for e in annotations),
        Counter((e['img_id'], e['file'], e['reason']) for e in images),
    )


def test_every_kind_of_fault_is_planted_where_it_is_read(planted):
    for name, split in planted.splits.items():
        assert {kind for kind, _, _ in split.faults.values()} == {'clipped', *DROPPED}
        assert len(set(split.bad) & set(planted.read(name))) > 1.5 * len(BAD)  # kinds take turns
        assert split.odd.keys() == {'good', *ODD}
        assert min(split.crowds, *split.without_boxes.values()) > 0


@pytest.mark.parametrize('split', ['train', 'val'])
def test_every_fault_is_counted_once_and_every_good_box_is_used(planted, split):
    expected = planted.splits[split]
    loader = loader_of(planted, split, 'skip', num_workers=2, batch_size=32)
    dataset = loader.dataset

    assert dataset.metainfo['classes'] == BY_ID
    found = Counter((fault.kind, fault.img_id, fault.ann_id, fault.reason) for fault in dataset.faults)
    assert found == Counter(expected.annotation_entries)
    assert dataset.without_boxes == expected.without_boxes
    kinds = Counter(kind for kind, _, _ in expected.faults.values())
    kept = sum(map(len, expected.boxes.values()))
    left_out = len(expected.images) - len(planted.read(split))
    for words in (
        f'{len(planted.read(split))} images, {kept} boxes of {len(BY_ID)} classes; ',
        f'dropped {sum(kinds[kind] for kind in DROPPED)} boxes '
        f'({kinds["not_finite"]} not_finite, {kinds["outside"]} outside, {kinds["too_small"]} too_small), ',
        f'clipped {kinds["clipped"]}, passed over {expected.crowds} crowds, left out {left_out} images',
    ):
        assert words in dataset._summary(len(expected.images))

    good, bad = Counter[int](), Counter[tuple[Any, ...]]()
    for batch in loader:
        bad.update(tuple(one)[:3] for one in batch['bad_images'])
        gt = batch['gt']
        for i, img_id in enumerate(gt.img_id.tolist()):
            if img_id != -1:
                good[img_id] += 1
                check_boxes(expected, img_id, gt.bboxes[i][gt.valid[i]], gt.labels[i][gt.valid[i]])
    assert bad == Counter(planted.image_entries(split))
    assert good == Counter(img_id for img_id in planted.read(split) if img_id not in expected.bad)


def check_boxes(expected: Expected, img_id: int, bboxes: Any, labels: Any) -> None:
    """The boxes of a sample, in pixels of the input, are those that were planted and are left."""
    w, h = expected.sizes[img_id]
    wanted = sorted(
        (label, *np.float64([x1 * SIDE / w, y1 * SIDE / h, x2 * SIDE / w, y2 * SIDE / h]))
        for label, (x1, y1, x2, y2) in expected.boxes[img_id]
    )
    got = sorted((label, *box) for label, box in zip(labels.tolist(), bboxes.double().tolist(), strict=True))
    assert len(got) == len(wanted)
    np.testing.assert_allclose(np.float64(got), np.float64(wanted), atol=2e-2)


def test_fail_stops_at_every_bad_image_and_names_it(planted):
    expected = planted.splits['train']
    dataset = loader_of(planted, 'train', 'fail', num_workers=0).dataset
    bad = [(row, img_id) for row, img_id in enumerate(planted.read('train')) if img_id in expected.bad]
    for row, img_id in bad:
        with pytest.raises(ValueError, match=r'train_dataloader\.dataset\.on_bad_image=skip') as error:
            dataset[row]
        named = f'{expected.images[img_id]} (image {img_id} of {planted.root}/annotations/train.json)'
        assert str(error.value).startswith(f'{named}: {expected.bad[img_id]}. ')


def test_check_training_and_test_list_the_same(planted, tmp_path, capfd):
    of_split = {
        split: (Counter(planted.annotation_entries(split)), Counter(planted.image_entries(split)))
        for split in planted.splits
    }
    root, options = ['--data-root', str(planted.root)], as_arguments(options_of())
    assert check_dataset.main([str(PLAIN), *root, '--workers', '2', '--out', 'report.json', *options]) == 1
    assert {split: listed(Path('report.json'), split) for split in of_split} == of_split
    said = capfd.readouterr().out
    assert f'train would stop at {len(of_split["train"][1])} image files' in said
    assert '--cfg-options train_dataloader.dataset.on_bad_image=skip' in said
    assert 'val would stop' not in said
    assert f'{sum(len(planted.read(split)) for split in of_split)} image files in ' in said
    for split in planted.splits.values():
        assert f'without boxes to train on: {check_dataset.counts(split.without_boxes)}' in said

    steps = {'train_cfg__max_epochs': 1, 'train_cfg__max_iters': 1000, 'train_dataloader__batch_size': 4}
    runner = train(small_config(planted.root, tmp_path / 'run', **SKIP, **steps))
    assert runner.iter == -(-len(planted.read('train')) // 4)
    report = tmp_path / 'run/bad_data.json'
    assert {split: listed(report, split) for split in of_split} == of_split
    assert 'val/coco/bbox_mAP' in runner.message_hub.log_scalars

    words = [str(PLAIN), str(tmp_path / 'run/latest.pth'), *root, '--work-dir', str(tmp_path / 'run')]
    for _ in range(2):  # a second test does not list them again
        numbers = test_tool.main([*words, '--eval', 'bbox', *options])
        assert 0 <= numbers['coco/bbox_mAP'] <= 1
        assert listed(report, 'test', ann_file='val') == of_split['val']
        assert {split: listed(report, split) for split in of_split} == of_split
