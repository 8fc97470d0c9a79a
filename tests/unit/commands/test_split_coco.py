import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet.commands.split_coco import main

RARE, COMMON = 5, 80


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """100 images, four a video: of classes that 80 and 5 hold, and none in the rest."""
    images = [
        {'id': n, 'file_name': f'v{n // 4:02}_{n}.jpg', 'width': 40, 'height': 30, 'video_id': n // 4}
        for n in range(100)
    ]
    classes = [(n, 1) for n in range(COMMON)] + [(n * 7, 2) for n in range(RARE)]
    content = {
        'images': images,
        'annotations': [
            {'id': row, 'image_id': image, 'category_id': category, 'bbox': [1, 1, 9, 9]}
            for row, (image, category) in enumerate(classes, start=1)
        ],
        'categories': [{'id': 1, 'name': 'common'}, {'id': 2, 'name': 'rare'}],
    }
    (tmp_path / 'all.json').write_text(json.dumps(content))
    return tmp_path / 'all.json'


def split(source: Path, *words: str) -> dict[str, dict]:
    out = source.parent / 'out'
    main([str(source), str(out), *words])
    return {file.stem: json.loads(file.read_text()) for file in out.glob('*.json')}


def ids(content: dict) -> list[int]:
    return [image['id'] for image in content['images']]


@pytest.mark.parametrize(
    ('words', 'sizes', 'rare'),
    [
        ([], {'train': 80, 'val': 20}, {'train': 4, 'val': 1}),
        (
            ['--val', '0.2', '--test', '0.2'],
            {'train': 60, 'val': 20, 'test': 20},
            {'train': 3, 'val': 1, 'test': 1},
        ),
    ],
)
def test_every_class_has_its_share(source, words, sizes, rare):
    found = split(source, *words)
    assert {name: len(content['images']) for name, content in found.items()} == sizes
    whole = json.loads(source.read_text())
    assert sorted(number for content in found.values() for number in ids(content)) == ids(whole)
    for name, content in found.items():
        labels = [one['category_id'] for one in content['annotations']]
        assert labels.count(2) == rare[name]
        assert labels.count(1) == 0.8 * sizes[name]
        assert content['categories'] == whole['categories']
        assert {one['image_id'] for one in content['annotations']} <= set(ids(content))


def test_the_seed_decides(source):
    first, again, other = (ids(split(source, '--seed', seed)['val']) for seed in '003')
    assert first == again != other


@pytest.mark.parametrize('key', ['video_id', r'^v(\d+)_', '^[^_]+'])
def test_groups_stay_together(source, key):
    found = split(source, '--group', key)
    train, val = ({number // 4 for number in ids(found[name])} for name in ('train', 'val'))
    assert not train & val
    assert len(ids(found['val'])) == 20


def test_photos_that_look_alike_stay_together(source):
    """Four a video, of other sizes and a little noise; two videos share one scene."""
    rng = np.random.default_rng(0)
    scenes = [cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (160, 120)) for _ in range(24)]
    for n in range(100):
        photo = scenes[n // 4 % 24] + rng.normal(0, 4, (120, 160, 3))
        side = 60 + 20 * (n % 4)
        photo = cv2.resize(photo.clip(0, 255).astype(np.uint8), (side, side))
        cv2.imwrite(str(source.parent / f'v{n // 4:02}_{n}.jpg'), photo)
    found = split(source, '--near-duplicates', str(source.parent))
    train, val = ({number // 4 % 24 for number in ids(found[name])} for name in ('train', 'val'))
    assert val and not train & val
    (source.parent / 'v00_0.jpg').unlink()
    with pytest.raises(ValueError, match=r'v00_0\.jpg: the file is missing'):
        split(source, '--near-duplicates', str(source.parent))


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--val', '0.9', '--test', '0.2'], 'leave nothing to train on'),
        (['--val', '0.7', '--test', '0.3'], 'leave nothing to train on'),
        (['--val', '0.001'], r'val\.json would get no image'),
        (['--group', 'vidoe_id'], 'no field of the images'),
        (['--group', '(v'], 'not a regular expression'),
    ],
)
def test_what_cannot_be_split_is_refused(source, words, message):
    with pytest.raises(ValueError, match=message):
        split(source, *words)
    assert not (source.parent / 'out').exists()


def test_the_file_that_is_read_stays(source):
    train = source.rename(source.with_name('train.json'))
    with pytest.raises(ValueError, match='is the file that is read'):
        main([str(train), str(train.parent)])
