"""Fixtures for all tests."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import settings

# Runs are compared bit for bit: also with what fixtures computed that are built before any other.
torch.set_num_threads(1)

# The same examples in every run; the long part draws new ones each time.
settings.register_profile('same', derandomize=True, database=None)
settings.load_profile('default' if os.environ.get('DISTILL_LONG') else 'same')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that are marked long, unless DISTILL_LONG is set."""
    if not os.environ.get('DISTILL_LONG'):
        for item in items:
            if item.get_closest_marker('long'):
                item.add_marker(pytest.mark.skip(reason='long: set DISTILL_LONG=1'))


@pytest.fixture(scope='session')
def shared_data() -> Callable[[str], Path]:
    """`shared_data('coco-mini')`: folder of a real data set; the test is skipped where there is none.

    Looked for in $DISTILL_DATA, else in shared/data next to the repository.
    """
    neighbor = Path(__file__).resolve().parents[2] / 'shared' / 'data'
    root = Path(os.environ.get('DISTILL_DATA', neighbor))

    def find(name: str) -> Path:
        if not (root / name / 'annotations').is_dir():
            pytest.skip(f'no data set {root / name}; set DISTILL_DATA to the folder that holds {name}')
        return root / name

    return find


@pytest.fixture
def tiny_coco(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small COCO-format set of generated JPEGs and returns its root.

    The images of `split` land in `root/<split>/1.jpg ...`, ids from 1, annotations in
    `root/annotations/<split>.json`. Each object is a rectangle of its class's color on a noisy ground;
    category ids are 1, 3, 5, ... The last `empty` images hold no object, and each of the first `crowds`
    images one crowd besides its objects.
    """

    def write(
        images: int = 4,
        classes: Sequence[str] = ('brick', 'leaf', 'pond'),
        size: tuple[int, int] = (96, 128),
        objects: int = 3,
        empty: int = 0,
        crowds: int = 0,
        seed: int = 0,
        split: str = 'train',
        root: Path = tmp_path / 'tiny',
    ) -> Path:
        rng = np.random.default_rng(seed)
        height, width = size
        (root / 'annotations').mkdir(parents=True, exist_ok=True)
        (root / split).mkdir(exist_ok=True)
        colors = np.random.default_rng(7).integers(0, 256, (len(classes), 3))
        annotations = []
        for img_id in range(1, images + 1):
            img = rng.integers(90, 166, (height, width, 3), dtype=np.uint8)
            shown = objects if img_id <= images - empty else 0
            for number in range(shown + (img_id <= crowds)):
                w, h = rng.integers(width // 6, width // 2), rng.integers(height // 6, height // 2)
                x, y = rng.integers(0, width - w), rng.integers(0, height - h)
                label = int(rng.integers(len(classes)))
                img[y : y + h, x : x + w] = colors[label]
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'image_id': img_id,
                        'category_id': 2 * label + 1,
                        'bbox': [float(x), float(y), float(w), float(h)],
                        'area': float(w * h),
                        'iscrowd': int(number >= shown),
                    }
                )
            cv2.imwrite(str(root / split / f'{img_id}.jpg'), img)
        content = {
            'images': [
                {'id': i, 'file_name': f'{i}.jpg', 'width': width, 'height': height}
                for i in range(1, images + 1)
            ],
            'categories': [{'id': 2 * label + 1, 'name': name} for label, name in enumerate(classes)],
            'annotations': annotations,
        }
        (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))
        return root

    return write
