"""Thousands of planted faults through training and evaluation: each is listed once, nothing else is."""

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


@pytest.fixture(scope='module')
def many(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """The large set."""
    root = tmp_path_factory.mktemp('many')
    return Planted(
        root, {'train': plant(root, 'train', images=2000, seed=1), 'val': plant(root, 'val', 1000, seed=2)}
    )


@pytest.fixture(scope='module')
def few(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """One that is trained and tested on."""
    root = tmp_path_factory.mktemp('few')
    return Planted(root, {'train': plant(root, 'train', 120, seed=3), 'val': plant(root, 'val', 80, seed=4)})


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


def listed(file: Path, split: str) -> tuple[Counter[tuple[Any, ...]], Counter[tuple[Any, ...]]]:
    """What a report lists of a split, and how often.

    Of the annotations (kind, image id, annotation id, reason), of the images (id, file, reason).
    """
    report = json.loads(file.read_text())
    annotations, images = (
        [entry for entry in entries if entry['split'] == split]
        for entries in (report['annotations'], report['images'])
    )
    assert all(entry['file'].endswith(f'annotations/{split}.json') for entry in annotations)
    return (
        Counter((e['kind'], e['img_id'], e['ann_id'], e['reason']) for e in annotations),
        Counter((e['img_id'], e['file'], e['reason']) for e in images),
    )


def once(entries: set[tuple[Any, ...]]) -> Counter[tuple[Any, ...]]:
    return Counter(entries)


# What was planted


def test_thousands_of_faults_of_every_kind_are_planted(many):
    faults = Counter(kind for split in many.splits.values() for kind, _, _ in split.faults.values())
    assert faults.keys() == {'clipped', *DROPPED}
    assert min(faults.values()) > 1500
    assert faults.total() > 8000
    assert sum(len(split.bad) for split in many.splits.values()) > 1000
    odd = Counter[str]()
    for split in many.splits.values():
        odd += split.odd
        assert min(split.without_boxes.values()) > 20
        assert split.crowds > 40
    assert odd.keys() == {'good', *ODD}
    assert min(odd.values()) > 40
    assert len(BAD) == 14


# Loaders


@pytest.mark.parametrize('split', ['train', 'val'])
def test_every_fault_is_counted_once_and_every_good_box_is_used(many, split):
    expected = many.splits[split]
    loader = loader_of(many, split, 'skip', num_workers=2, batch_size=32)
    dataset = loader.dataset

    assert dataset.metainfo['classes'] == BY_ID
    found = Counter((fault.kind, fault.img_id, fault.ann_id, fault.reason) for fault in dataset.faults)
    assert found == once(expected.annotation_entries)
    assert dataset.without_boxes == expected.without_boxes
    kinds = Counter(kind for kind, _, _ in expected.faults.values())
    kept = sum(map(len, expected.boxes.values()))
    left_out = len(expected.images) - len(many.read(split))
    for words in (
        f'{len(many.read(split))} images, {kept} boxes of {len(BY_ID)} classes; ',
        f'dropped {sum(kinds[kind] for kind in DROPPED)} boxes '
        f'({kinds["not_finite"]} not_finite, {kinds["outside"]} outside, {kinds["too_small"]} too_small), ',
        f'clipped {kinds["clipped"]}, passed over {expected.crowds} crowds, left out {left_out} images',
    ):
        assert words in dataset._summary(len(expected.images))

    good, bad = Counter[int](), Counter[tuple[Any, ...]]()
    for batch in loader:
        bad.update(tuple(one)[:3] for one in batch['bad_images'])
        gt = batch['gt']
        good.update(img_id for img_id in gt.img_id.tolist() if img_id != -1)
        for i, img_id in enumerate(gt.img_id.tolist()):
            if img_id != -1:
                check_boxes(expected, img_id, gt.bboxes[i][gt.valid[i]], gt.labels[i][gt.valid[i]])
    assert bad == once(many.image_entries(split))
    assert good == once({img_id for img_id in many.read(split) if img_id not in expected.bad})


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


def test_fail_stops_at_every_bad_image_and_names_it(many):
    expected = many.splits['train']
    dataset = loader_of(many, 'train', 'fail', num_workers=0).dataset
    stopped = 0
    for row, img_id in enumerate(many.read('train')):
        if img_id not in expected.bad:
            continue
        with pytest.raises(ValueError, match=r'train_dataloader\.dataset\.on_bad_image=skip') as error:
            dataset[row]
        named = f'{expected.images[img_id]} (image {img_id} of {many.root}/annotations/train.json)'
        assert str(error.value).startswith(f'{named}: {expected.bad[img_id]}. ')
        stopped += 1
    assert stopped == len(many.image_entries('train')) > 500


def test_fail_stops_a_loader_at_the_first_bad_image(many):
    first = next(img_id for img_id in many.read('train') if img_id in many.splits['train'].bad)
    in_order = {'sampler': {'type': 'DetSampler', 'shuffle': False}, 'batch_size': 1}
    loader = loader_of(many, 'train', 'fail', num_workers=0, **in_order)
    taken = []
    with pytest.raises(ValueError, match=f'image {first} of'):
        for batch in loader:
            taken += batch['gt'].img_id.tolist()
    assert taken == many.read('train')[: many.read('train').index(first)]


# A training and a test


def test_training_and_test_list_the_same(few, tmp_path):
    for split in few.splits:  # nothing that is planted is missing where it is trained and tested on
        expected, read = few.splits[split], few.read(split)
        assert expected.odd.keys() == {'good', *ODD}
        assert len(set(expected.bad) & set(read)) > 1.5 * len(BAD)  # kinds take turns
        assert {kind for kind, _, _ in expected.faults.values()} == {'clipped', *DROPPED}
        assert min(expected.crowds, *expected.without_boxes.values()) > 0
    keywords = {'train_cfg__max_epochs': 1, 'train_cfg__max_iters': 1000, 'train_dataloader__batch_size': 4}
    runner = train(small_config(few.root, tmp_path / 'run', **SKIP, **keywords))
    assert runner.iter == -(-len(few.read('train')) // 4)
    report = tmp_path / 'run/bad_data.json'
    for split in ('train', 'val'):
        assert listed(report, split) == (
            once(few.annotation_entries(split)),
            once(few.image_entries(split)),
        )
    assert 'val/coco/bbox_mAP' in runner.message_hub.log_scalars

    before = {split: listed(report, split) for split in ('train', 'val')}
    checkpoint = str(tmp_path / 'run/latest.pth')
    words = ['--data-root', str(few.root), '--work-dir', str(tmp_path / 'run'), '--eval', 'bbox']
    for _ in range(2):  # a second test does not list them again
        numbers = test_tool.main([str(PLAIN), checkpoint, *words, *as_arguments(options_of())])
        assert 0 <= numbers['coco/bbox_mAP'] <= 1
        of_test = {(kind, *rest) for kind, *rest in few.annotation_entries('val')}
        annotations, images = listed_as_test(report)
        assert annotations == once(of_test)
        assert images == once(few.image_entries('val'))
        assert {split: listed(report, split) for split in ('train', 'val')} == before


def listed_as_test(file: Path) -> tuple[Counter[tuple[Any, ...]], Counter[tuple[Any, ...]]]:
    """What a report lists of the test split, whose files are those of the validation."""
    report = json.loads(file.read_text())
    of_test = {
        section: [{**one, 'split': 'val'} for one in entries if one['split'] == 'test']
        for section, entries in report.items()
    }
    copy_of = file.with_name('of_test.json')
    copy_of.write_text(json.dumps(of_test))
    return listed(copy_of, 'val')


# The same before training


def test_check_dataset_reports_the_same(many, capfd):
    words = [str(PLAIN), '--data-root', str(many.root), '--workers', '2', '--out', 'report.json']
    arguments = as_arguments(options_of())
    assert check_dataset.main([*words, *arguments]) == 1
    for split in ('train', 'val'):
        assert listed(Path('report.json'), split) == (
            once(many.annotation_entries(split)),
            once(many.image_entries(split)),
        )
    assert {e['split'] for es in json.loads(Path('report.json').read_text()).values() for e in es} == {
        'train',
        'val',
    }
    said = capfd.readouterr().out
    count = len(many.image_entries('train'))
    assert f'train would stop at {count} image files' in said
    assert '--cfg-options train_dataloader.dataset.on_bad_image=skip' in said
    assert 'val would stop' not in said
    assert f'{sum(len(many.read(split)) for split in many.splits)} image files in ' in said
    for split in many.splits.values():
        assert f'without boxes to train on: {check_dataset.counts(split.without_boxes)}' in said
