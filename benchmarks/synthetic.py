"""COCO annotation files of any size, seeded, with everything that makes the real ones long."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

CLASSES = 80
POLYGON_POINTS = 25  # on average: with them 860,001 objects take 430 MB, most of it polygons
CHUNK = 10_000  # objects that are drawn at once


def write_annotations(
    file: Path, images: int, objects: int, shapes: Sequence[tuple[str, int, int]], seed: int = 0
) -> None:
    """Write a COCO annotation file in chunks, so that it is never held in memory as a whole.

    Args:
        file: Where to; nothing is left half written.
        images: How many, ids 1, 2, ...
        objects: How many, in random order of the images; every hundredth is a crowd.
        shapes: Names of image files with their height and width; the images take them in turns.
        seed: Of all random numbers.
    """
    names = [{'id': k, 'name': f'class {k:02d}', 'supercategory': 'thing'} for k in range(1, CLASSES + 1)]
    entries = [_image(number, *shapes[number % len(shapes)]) for number in range(images)]
    head = msgspec.json.encode({'images': entries, 'categories': names})
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix('.part')
    with unfinished.open('wb') as stream:
        stream.write(head[:-1] + b',"annotations":[')
        for number, chunk in enumerate(_objects(images, objects, shapes, seed)):
            stream.write(b',' * (number > 0) + msgspec.json.encode(chunk)[1:-1])
        stream.write(b']}')
    unfinished.replace(file)


def _image(number: int, name: str, height: int, width: int) -> dict[str, Any]:
    return {
        'license': 3,
        'file_name': name,
        'coco_url': f'http://images.cocodataset.org/train2017/{number + 1:012d}.jpg',
        'height': height,
        'width': width,
        'date_captured': '2013-11-14 11:18:45',
        'flickr_url': f'http://farm9.staticflickr.com/8186/{number + 1:010d}_cbe4b0d8c8_z.jpg',
        'id': number + 1,
    }


def _objects(
    images: int, count: int, shapes: Sequence[tuple[str, int, int]], seed: int
) -> Iterator[list[dict[str, Any]]]:
    """Yield chunks of annotations."""
    rng = np.random.default_rng(seed)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        image = rng.integers(0, images, size)
        sizes = np.array([(width, height) for _, height, width in shapes])[image % len(shapes)]
        sides = (0.02 + 0.6 * rng.random((size, 2)) ** 2) * sizes
        corner = rng.random((size, 2)) * (sizes - sides)
        boxes = np.concatenate([corner, sides], 1).round(2)  # (size, 4) xywh
        category = 1 + rng.integers(0, CLASSES, size)
        points = rng.integers(POLYGON_POINTS // 2, 3 * POLYGON_POINTS // 2, size)
        places = rng.random((size, points.max(), 2))  # within the box
        outlines = (boxes[:, None, :2] + places * boxes[:, None, 2:]).round(2).reshape(size, -1)
        areas = (0.6 * boxes[:, 2] * boxes[:, 3]).round(4)
        rows = zip(boxes, category, points, outlines, areas, image, strict=True)
        yield [
            {
                'segmentation': {'counts': [0, 10], 'size': [1, 10]}
                if crowd
                else [outline[: 2 * n].tolist()],
                'area': float(area),
                'iscrowd': int(crowd),
                'image_id': int(img) + 1,
                'bbox': box.tolist(),
                'category_id': int(label),
                'id': number,
            }
            for number, (box, label, n, outline, area, img) in enumerate(rows, start=start + 1)
            for crowd in [number % 100 == 0]
        ]
