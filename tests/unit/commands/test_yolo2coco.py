import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdet.commands.yolo2coco import label_file, main
from mmdet.datasets import CocoDataset

BOX = '1 0.5 0.5 0.25 0.5\n'  # of a photo of 40 x 20: x 15, y 5, 10 x 10


@pytest.fixture
def add(tmp_path):
    """`add('images/train/a.jpg', labels)` writes a photo of 40 x 20 pixels and, unless None, its labels."""

    def write(photo: str, labels: str | None) -> None:
        file = tmp_path / photo
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.full((20, 40, 3), 128, np.uint8))
        if labels is not None:
            label_file(file).parent.mkdir(parents=True, exist_ok=True)
            label_file(file).write_text(labels)

    return write


def convert(root: Path, yaml: str, *words: str) -> dict:
    """Run the command; returns the content of its files by split."""
    (root / 'data.yaml').write_text(yaml)
    main([str(root / 'data.yaml'), *words])
    return {file.stem: json.loads(file.read_text()) for file in (root / 'annotations').glob('*.json')}


ULTRALYTICS = """
path: /of/another/machine
train: images/train
val:
  - images/val
  - images/more
test: lists/test.txt
names:
  0: ant
  1: bee
"""
ROBOFLOW = """
train: ../train/images
val: ../valid/images
nc: 2
names: ['ant', 'bee']
"""


def test_ultralytics_layout(add, tmp_path):
    """Nested folders, an empty label file, none, one photo in two folders, a list of paths."""
    for photo, labels in (
        ('images/train/a.jpg', BOX),
        ('images/train/deep/b.png', ''),
        ('images/val/c.jpg', None),
        ('images/more/d.jpg', BOX),
        ('images/e.jpg', BOX),
    ):
        add(photo, labels)
    (tmp_path / 'lists').mkdir()
    (tmp_path / 'lists/test.txt').write_text(
        f'../images/e.jpg\n\nimages/more/d.jpg\n{tmp_path}/images/e.jpg\n'
    )
    found = convert(tmp_path, ULTRALYTICS)
    names = {split: [image['file_name'] for image in content['images']] for split, content in found.items()}
    assert names == {
        'train': ['a.jpg', 'deep/b.png'],
        'val': ['more/d.jpg', 'val/c.jpg'],
        'test': ['e.jpg', 'more/d.jpg'],
    }
    assert [one['image_id'] for one in found['val']['annotations']] == [1]
    assert [one['id'] for one in found['test']['annotations']] == [1, 2]


def test_what_is_printed_trains(add, tmp_path, capsys):
    add('train/images/a.jpg', BOX)
    add('valid/images/b.jpg', BOX)
    found = convert(tmp_path, ROBOFLOW)
    assert found['train'] == {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'width': 40, 'height': 20}],
        'annotations': [
            {'id': 1, 'image_id': 1, 'category_id': 2, 'bbox': [15, 5, 10, 10], 'area': 100, 'iscrowd': 0}
        ],
        'categories': [{'id': 1, 'name': 'ant'}, {'id': 2, 'name': 'bee'}],
    }
    *_, root, _, ann, img, val_ann, val_img = capsys.readouterr().out.split()
    assert (val_ann, val_img) == ('val_ann=annotations/val.json', 'val_img=valid/images')
    data = CocoDataset(root, ann.partition('=')[2], {'img': img.partition('=')[2]}, [])
    assert data.image_file(1) == tmp_path / 'train/images/a.jpg'
    assert not data.faults


@pytest.mark.parametrize(
    ('labels', 'bboxes'),
    [
        ('0 0.25 0.5 0.5 0.5 0.75 1.0\n', [[10, 10, 20, 10]]),  # a polygon
        (BOX * 2 + '\n', [[15, 5, 10, 10]]),
        ('\ufeff0 0.0 0.0 0.5 0.5\n', [[-10, -5, 20, 10]]),  # partly outside: the data set clips it
    ],
)
def test_lines(add, tmp_path, labels, bboxes):
    add('train/images/a.jpg', labels)
    found = convert(tmp_path, 'train: train/images\nnames: [no, 010]')
    assert [one['bbox'] for one in found['train']['annotations']] == bboxes
    names = [one['name'] for one in found['train']['categories']]
    assert names == ['no', '010']  # text, whatever YAML makes of it


def test_keypoints_behind_a_box_are_no_polygon(add, tmp_path):
    add('train/images/a.jpg', BOX.strip() + ' 0.1 0.1 2 0.9 0.9 1')
    found = convert(tmp_path, 'train: train/images\nkpt_shape: [2, 3]\nnames: [ant, bee]')
    assert [one['bbox'] for one in found['train']['annotations']] == [[15, 5, 10, 10]]


def test_labels_are_those_of_the_photo_as_it_is_shown(add, tmp_path):
    """Turned by its EXIF data."""
    add('train/images/a.jpg', BOX)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (20, 40)).save(tmp_path / 'train/images/a.jpg', exif=exif)
    found = convert(tmp_path, 'train: train/images\nnames: [ant, bee]')['train']
    assert (found['images'][0]['width'], found['images'][0]['height']) == (40, 20)
    data = CocoDataset(str(tmp_path), 'annotations/train.json', {'img': 'train/images'}, [])
    assert data.read_image_fault(1) is None


@pytest.mark.parametrize(
    ('labels', 'words'),
    [
        ('1 0.5 0.5 0.2', ['3 numbers after the class']),
        ('1 0.5 0.5 0.2 0.2 0.3 0.3 0.3', ['7 numbers']),
        ('1 20 10 8 8', ['are they pixels?']),
        ('2 0.5 0.5 0.2 0.2', ['there is no class 2 in names']),
        ('bee 0.5 0.5 0.2 0.2', ["'bee'"]),
        ('1 nan 0.5 0.2 0.2', ['not shares']),
    ],
)
def test_a_line_that_is_wrong_is_named(add, tmp_path, labels, words):
    add('train/images/a.jpg', BOX + labels)
    with pytest.raises(ValueError, match=r'labels/a\.txt, line 2') as error:
        convert(tmp_path, 'train: train/images\nnames: [ant, bee]')
    assert all(word in str(error.value) for word in words)


def test_labels_in_another_encoding_are_named(add, tmp_path):
    add('train/images/a.jpg', BOX)
    (tmp_path / 'train/labels/a.txt').write_text(BOX, encoding='utf-16')
    with pytest.raises(ValueError, match=r'labels/a\.txt is not text in UTF-8'):
        convert(tmp_path, 'train: train/images\nnames: [ant, bee]')


@pytest.mark.parametrize(
    ('yaml', 'error', 'words'),
    [
        ('train: images', ValueError, 'three lines such as'),
        ('names: [ant]', ValueError, 'three lines such as'),
        ('train: images/train\nnames: ant', ValueError, 'three lines such as'),
        ('train: images/train\nnames: {ant: 0}', ValueError, 'three lines such as'),
        ('- x', ValueError, 'three lines such as'),
        ('a: [', ValueError, 'not a YAML file'),
        ('train: images\nnames: [ant, ant]', ValueError, "the name 'ant'"),
        ('train: image/train\nnames: [ant]', FileNotFoundError, r'Did you mean .*images/train\?'),
        ('train: list.txt\nnames: [ant]', FileNotFoundError, r'list\.txt, line 1'),
        ('train: labels\nnames: [ant]', ValueError, 'no image in train'),
        ('train: images/train\nnames: [ant]', FileNotFoundError, r'labels/train/a\.txt'),
    ],
)
def test_a_yaml_that_cannot_be_used_is_named(add, tmp_path, yaml, error, words):
    add('images/train/a.jpg', None)
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'list.txt').write_text('nowhere.jpg')
    with pytest.raises(error, match=words):
        convert(tmp_path, yaml)


def test_a_set_without_val_is_told_to_split(add, tmp_path, capsys):
    add('train/images/a.jpg', BOX)
    convert(tmp_path, 'train: train/images\nnames: [ant, bee]')
    assert f'split_coco.py {tmp_path}/annotations/train.json' in capsys.readouterr().out
