"""COCO annotation files of any size, seeded, with everything that makes the real ones long."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 80
POLYGON_POINTS = 22  # on average: with them 860,001 objects take 450 MB, half of it polygons
CHUNK = 10_000  # objects that are drawn at once


def write_annotations(
    file: Path, images: int, objects: int, shapes: Sequence[tuple[str, int, int]], seed: int = 0
) -> None:
    """Write an annotation file, object by object: the whole would not be held in memory as easily.

    Args:
        file: Where to; nothing is left half written.
        images: How many, ids 1, 2, ...
        objects: How many, in random order of the images; every hundredth is a crowd.
        shapes: Names of image files with their height and width; the images take them in turns.
        seed: Of all random numbers.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix('.part')
    with unfinished.open('w') as stream:
        stream.write('{"images": [')
        for number, entry in enumerate(_images(images, shapes)):
            stream.write((', ' if number else '') + json.dumps(entry))
        categories = [
            {'id': k, 'name': f'class {k:02d}', 'supercategory': 'thing'} for k in range(1, CLASSES + 1)
        ]
        stream.write(f'], "categories": {json.dumps(categories)}, "annotations": [')
        for number, text in enumerate(_objects(images, objects, shapes, seed)):
            stream.write((', ' if number else '') + text)
        stream.write(']}')
    unfinished.replace(file)


def _images(count: int, shapes: Sequence[tuple[str, int, int]]) -> Iterator[dict[str, Any]]:
    for number in range(count):
        name, height, width = shapes[number % len(shapes)]
        yield {
            'license': 3,
            'file_name': name,
            'coco_url': f'http://images.cocodataset.org/train2017/{number + 1:012d}.jpg',
            'height': height,
            'width': width,
            'date_captured': '2013-11-14 11:18:45',
            'flickr_url': f'http://farm9.staticflickr.com/8186/{number + 1:010d}_cbe4b0d8c8_z.jpg',
            'id': number + 1,
        }


def _objects(images: int, count: int, shapes: Sequence[tuple[str, int, int]], seed: int) -> Iterator[str]:
    """Each object as JSON text; formatted by hand, `json.dumps` would take minutes."""
    rng = np.random.default_rng(seed)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        image = rng.integers(0, images, size)
        sizes = np.array([(width, height) for _, height, width in shapes])[image % len(shapes)]
        sides = (0.02 + 0.6 * rng.random((size, 2)) ** 2) * sizes
        corner = rng.random((size, 2)) * (sizes - sides)
        boxes = np.concatenate([corner, sides], 1).round(2)
        category = 1 + rng.integers(0, CLASSES, size)
        points = rng.integers(POLYGON_POINTS // 2, 3 * POLYGON_POINTS // 2, size)
        places = rng.random((size, 3 * POLYGON_POINTS))  # x and y within the box
        for i in range(size):
            number = start + i + 1
            x, y, w, h = boxes[i].tolist()
            place = places[i, : 2 * points[i]].reshape(-1, 2)
            polygon = ((x, y) + place * (w, h)).ravel().tolist()
            outline = ', '.join([f'{value:.2f}' for value in polygon])
            crowd = number % 100 == 0
            shape = '{"counts": [0, 10], "size": [1, 10]}' if crowd else f'[[{outline}]]'
            yield (
                f'{{"segmentation": {shape}, "area": {0.6 * w * h:.4f}, "iscrowd": {int(crowd)}, '
                f'"image_id": {image[i] + 1}, "bbox": [{x}, {y}, {w}, {h}], '
                f'"category_id": {category[i]}, "id": {number}}}'
            )
