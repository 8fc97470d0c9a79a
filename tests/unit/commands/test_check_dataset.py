"""Faults of a data set, named before training; see test_planted_faults.py."""

import json
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdet.commands import check as check_dataset
from mmdet.datasets import CocoDataset
from tests.helpers.tiny_run import PLAIN, ROOT, SPLITS, write_sets

REMEDY = 'train_dataloader.dataset.on_bad_image=skip'
OPTIONS = [f'{key}={value}' for key, value in SPLITS.items()]
REPORT = Path('work_dirs/ssd_tiny/check_dataset.json')


@pytest.fixture
def sized(tiny_coco, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images to train on, three to validate on, one of them without objects."""
    monkeypatch.chdir(tmp_path)
    return write_sets(tiny_coco, tmp_path / 'set', crowds=2)


@pytest.fixture
def root(sized: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, where sizes, whose picture takes long, are not asked for."""
    monkeypatch.setattr(check_dataset, 'print_sizes', lambda *_: None)
    return sized


def check(root: Path, *words: str, options: list[str] | None = None, config: Path = PLAIN) -> int:
    arguments = [str(config), '--data-root', str(root), '--workers', '0', *words]
    return check_dataset.main([*arguments, '--cfg-options', *OPTIONS, *(options or [])])


def report(file: Path = REPORT) -> dict[str, Any]:
    return json.loads(file.read_text())


def edit(file: Path, section: str, number: int, **values: Any) -> None:
    content = json.loads(file.read_text())
    content[section][number].update(values)
    file.write_text(json.dumps(content))


def test_a_good_set(sized, capfd):
    assert check(sized) == 0
    assert report() == {'annotations': [], 'images': []}
    said, bar = capfd.readouterr()
    assert '9 image files in ' in said  # the test split is the validation split, and is not read again
    assert 'nothing would stop a training' in said
    assert 'images without boxes to train on: 1 empty' in said
    assert '6/6' in bar and '3/3' in bar
    assert re.findall(r'\| all +\| (\d+) +\| (\d+) ', said) == [('6', '18'), ('2', '6')]
    assert 'train: box sizes in pixels of the network input, up to 96 x 96: ' in said
    assert re.search(r'anchors reach \d+\.\d % of the boxes of train', said)
    assert REPORT.with_suffix('.png').is_file()


def test_a_photo_in_two_splits_and_a_teacher_without_anchors(sized, capfd):
    (sized / 'val/2.jpg').write_bytes((sized / 'train/4.jpg').read_bytes())
    assert check(sized, config=ROOT / 'configs_dev/teachers/resnet18_tiny.py') == 0
    said = capfd.readouterr().out
    assert f'photos in both train and val: 1, such as {sized}/train/4.jpg and {sized}/val/2.jpg\n' in said
    assert 'box sizes' in said and 'anchors' not in said


def test_another_set_than_coco_with_a_config_of_the_project(root, tmp_path, capsys):
    """A bad file ends with status 1 and the remedy."""
    (root / 'train/2.jpg').write_bytes(b'')
    assert check(root, '--out', 'found/out.json', config=ROOT / 'configs/ssd/ssd300.py') == 1
    said = capsys.readouterr().out
    assert f'{root}/train/2.jpg (image 2): the file is empty' in said
    assert f'train would stop at 1 image files; mend them, or leave them out: --cfg-options {REMEDY}' in said
    assert report(tmp_path / 'found/out.json')['images'] == [
        {'split': 'train', 'img_id': 2, 'file': f'{root}/train/2.jpg', 'reason': 'the file is empty'}
    ]


def test_with_the_remedy_nothing_would_stop(root, capfd):
    (root / 'train/2.jpg').unlink()
    (root / 'val/1.jpg').unlink()  # an image without detections, see on_bad_image of the config
    assert check(root, options=[REMEDY]) == 0
    assert [(one['split'], one['img_id']) for one in report()['images']] == [('train', 2), ('val', 1)]
    assert check(root, options=[REMEDY, 'val_dataloader.dataset.on_bad_image=fail']) == 1
    assert 'val_dataloader.dataset.on_bad_image=skip' in capfd.readouterr().out


def test_a_split_without_one_photo_or_one_box_is_told(sized, capfd):
    for file in (sized / 'train').iterdir():
        file.write_bytes(b'')
    content = json.loads((sized / 'annotations/val.json').read_text())
    content['annotations'] = [one | {'iscrowd': 1} for one in content['annotations']]
    (sized / 'annotations/val.json').write_text(json.dumps(content))
    assert check(sized, options=[REMEDY]) == 1
    said = capfd.readouterr().out
    first = 'the first: the file is empty'
    assert f'train has not one image file that can be used ({first}): is {sized}/train its folder?' in said
    assert 'val.json: no image has a box of the classes asked for: 6 crowd. For example annotation 1' in said
    for file in (sized / 'train').iterdir():
        file.unlink()
    assert check(sized, options=[REMEDY]) == 1
    assert 'train holds none of the 6 images of' in capfd.readouterr().out


def test_photos_and_boxes_that_stand_twice_are_told(root, capfd):
    content = json.loads((root / 'annotations/train.json').read_text())
    content['annotations'] += [one | {'id': 99} for one in content['annotations'][1:2]]
    content['images'].append(content['images'][2] | {'id': 9})  # one file, two ids
    content['annotations'].append(content['annotations'][0] | {'id': 98, 'image_id': 9})
    (root / 'annotations/train.json').write_text(json.dumps(content))
    (root / 'train/2.jpg').write_bytes((root / 'train/4.jpg').read_bytes())
    assert check(root, '--split', 'train') == 0
    said = capfd.readouterr().out
    assert 'boxes that occur more than once in an image: 1, such as that of annotation 99;' in said
    copies = f'{root}/train/2.jpg and {root}/train/4.jpg'
    assert f'photos that occur more than once in train: 2, such as {copies}\n' in said


def test_a_missing_image_is_compared_and_lost_data_are_told(root, capfd):
    (root / 'train/1.jpg').rename(root / 'train/1.jpeg')
    deep = np.linspace(0, 2295, 96 * 128).reshape(96, 128).astype(np.uint16)
    (root / 'train/2.jpg').write_bytes(cv2.imencode('.png', deep)[1].tobytes())
    assert check(root, '--split', 'train') == 1
    said = capfd.readouterr().out
    assert f'1.jpg (image 1): the file is missing. Did you mean {root}/train/1.jpeg?\n' in said
    assert '2.jpg (image 2): the file holds 16-bit numbers from 0 to 2295, of which 9 gray levels' in said


def test_a_set_that_mixes_turned_and_stored_photos_is_told(root, capfd):
    def turn(name: str, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        with Image.open(root / f'train/{name}.jpg') as photo:
            photo.save(root / f'train/{name}.jpg', exif=exif)

    turn('2', 3)
    assert check(root, '--split', 'train') == 0
    assert 'images that EXIF data turn: 1 read upright\n' in capfd.readouterr().out
    turn('4', 6)  # annotated as it is stored
    assert check(root, '--split', 'train') == 0
    said = capfd.readouterr().out
    assert 'images that EXIF data turn: 1 read as stored, 1 read upright\n' in said
    assert 'that of image 4 as stored, but image 2 is read upright' in said


def test_a_refused_file_does_not_hide_the_other_split(root, capfd):
    edit(root / 'annotations/train.json', 'images', 1, id=1)
    (root / 'val/2.jpg').write_bytes(b'no')
    assert check(root) == 1
    (refused,) = report()['annotations']
    assert (refused['split'], refused['kind']) == ('train', 'refused')
    assert refused['file'] == f'{root}/annotations/train.json'
    assert "more than once in 'images'" in refused['reason']
    assert [one['img_id'] for one in report()['images']] == [2]
    assert 'train would stop: ' in capfd.readouterr().out


def test_splits(root, tmp_path):
    (root / 'annotations/other.json').write_bytes((root / 'annotations/val.json').read_bytes())
    (root / 'val/1.jpg').unlink()
    check(root, options=['test_ann=annotations/other.json'])
    assert [one['split'] for one in report()['images']] == ['val', 'test']
    check(root, '--split', 'test')  # asked for, though it is the validation split
    assert [one['split'] for one in report()['images']] == ['test']
    (root / 'annotations/train.json').unlink()
    check(root, '--split', 'val')
    assert [one['split'] for one in report()['images']] == ['val']
    with pytest.raises(FileNotFoundError, match='--data-root'):
        check(root)


def test_long_lists_are_cut_on_the_terminal_only(root, tiny_coco, capfd):
    tiny_coco(root=root, split='train', images=25)
    for file in (root / 'train').iterdir():
        file.write_bytes(b'')
    assert check(root, '--split', 'train') == 1
    assert len(report()['images']) == 25
    said = capfd.readouterr().out
    assert said.count('): the file is empty') == 20
    assert 'and 5 more' in said


def test_a_killed_worker_is_named(root, monkeypatch):
    """As the OOM killer does."""

    def read(self: CocoDataset, img_id: int) -> str | None:
        return os._exit(9) if img_id == 5 else None

    monkeypatch.setattr(CocoDataset, 'read_image_fault', read)
    monkeypatch.setattr(check_dataset, 'AT_A_TIME', 1)
    with pytest.raises(OSError, match=r'train/\d\.jpg on.*--workers 1'):
        check(root, '--split', 'train', '--workers', '2')
