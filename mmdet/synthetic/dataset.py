"""A generated detection set in COCO's format and layout: drawn objects on photo-like backgrounds.

Image i of a split is a function of (seed, split, i, size) only. Boxes, areas and segmentations are those
of the *visible* pixels, as COCO's are; an object of which too little would be seen is not painted at all,
so everything in an image is annotated. Crowds are heaps of small objects of one kind with one box.

H, W: height and width of an image in pixels
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator, Philox

from mmdet.synthetic.backgrounds import draw_background, expose
from mmdet.synthetic.objects import KINDS, Array, DrawnObject, draw_object

CLASSES = tuple(KINDS)
CATEGORY_IDS = (1, 2, 4, 5, 7, 11, 13, 16, 17, 22)  # with gaps, as COCO's have
SPLITS = ('train', 'val')

LEAST_VISIBLE = 0.35  # share of its pixels that an object must show to be painted
LEAST_SIDE = 8  # pixels of the visible box
EMPTY_SHARE, CROWD_SHARE = 0.04, 0.08  # images without objects, images with a crowd
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Scene:
    """An image and its annotations, which still lack their ids."""

    image: Array  # (H, W, 3) uint8, BGR
    annotations: list[dict[str, Any]]


@dataclass(frozen=True)
class _Placed:
    """A drawn object with its upper left corner in the image; it may reach over the border."""

    drawn: DrawnObject
    left: int
    top: int
    label: int
    iscrowd: bool


def make_dataset(out_dir: Path, train: int, val: int, seed: int = 0, size: int = 320) -> bool:
    """Write a set in COCO's layout: annotations/instances_{train,val}2017.json, train2017/, val2017/.

    Annotations are written last, so a set that has them is complete; it is kept when it was made with the
    same arguments.

    Args:
        out_dir: Folder to write to; made when missing.
        train: Number of training images.
        val: Number of validation images.
        seed: Not negative.
        size: Longer side of the images, in pixels.

    Returns:
        Whether images were drawn; False when this very set was there already.

    Raises:
        FileExistsError: Another set lies in `out_dir`.
    """
    if min(train, val, seed) < 0 or size < 96:
        raise ValueError(f'need train, val, seed >= 0 and size >= 96, got {train}, {val}, {seed} and {size}')
    counts = dict(zip(SPLITS, (train, val), strict=True))
    infos = {
        split: {'description': 'generated shapes', 'seed': seed, 'size': size, 'images': count, 'version': 1}
        for split, count in counts.items()
    }
    files = {split: out_dir / 'annotations' / f'instances_{split}2017.json' for split in SPLITS}
    there = {split: _info(file) for split, file in files.items() if file.exists()}
    if there == infos:
        return False
    if any(info != infos[split] for split, info in there.items()):
        raise FileExistsError(f'{out_dir} holds another data set; name another folder, or remove it first')
    for split, count in counts.items():
        coco = _write_images(out_dir / f'{split}2017', split, count, seed, size)
        files[split].parent.mkdir(parents=True, exist_ok=True)
        files[split].write_text(json.dumps({'info': infos[split], 'licenses': [], **coco}))
    return True


def _info(file: Path) -> Any:
    try:
        return json.loads(file.read_text()).get('info')
    except (ValueError, AttributeError):
        return None  # not ours, or cut short


def _write_images(
    folder: Path, split: str, count: int, seed: int, size: int
) -> dict[str, list[dict[str, Any]]]:
    """Write the images of a split; returns COCO's images, annotations and categories."""
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(count):
        scene = draw_scene(seed, split, i, size)
        img_id = 2 * i + 1 + SPLITS.index(split)  # no id is in both splits, and none is an index
        file = folder / f'{img_id:012d}.jpg'
        if not cv2.imwrite(str(file), scene.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise OSError(f'cannot write {file}; is the disk full, or the folder read-only?')
        height, width = scene.image.shape[:2]
        images.append({'id': img_id, 'file_name': file.name, 'height': height, 'width': width})
        for annotation in scene.annotations:
            ids = {'id': 2 * len(annotations) + 1 + SPLITS.index(split), 'image_id': img_id}
            annotations.append(ids | annotation)
    categories = [
        {'id': category_id, 'name': name, 'supercategory': 'thing'}
        for category_id, name in zip(CATEGORY_IDS, CLASSES, strict=True)
    ]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def draw_scene(seed: int, split: str, index: int, size: int = 320) -> Scene:
    """Draw image `index` of a split; its longer side has `size` pixels.

    Objects that stand lower in the image hide those behind them.
    """
    rng = Generator(Philox(key=[seed, SPLITS.index(split) << 32 | index]))
    width, height = size, round(size * rng.choice([0.66, 0.75, 0.75, 0.75, 1.0]))
    if rng.random() < 0.25:
        width, height = height, width
    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.7, -0.3), 0.75], np.float32)
    light /= np.linalg.norm(light)
    picture = draw_background((height, width), rng)
    placed = [] if rng.random() < EMPTY_SHARE else _arrange((height, width), light, rng)
    placed.sort(key=lambda one: one.top + one.drawn.alpha.shape[0])  # the last one stands in front

    painted: list[_Placed] = []
    annotations: list[dict[str, Any]] = []
    hidden = np.zeros((height, width), bool)  # by what stands in front
    for one in reversed(placed):
        solid = one.drawn.alpha >= 0.5
        covered = _in_image(one, solid, (height, width))
        visible = _without_specks(covered & ~hidden)
        if visible.sum() < LEAST_VISIBLE * solid.sum():
            continue
        annotation = _annotation(visible, one)
        if min(annotation['bbox'][2:]) < LEAST_SIDE or not annotation['segmentation']:
            continue
        hidden |= covered
        painted.append(one)
        annotations.append(annotation)
    for one in reversed(painted):
        _paint(picture, one, light, rng)
    return Scene(expose(picture, light, rng).round().astype(np.uint8), annotations)


def _arrange(size: tuple[int, int], light: Array, rng: Generator) -> list[_Placed]:
    """Draw the objects of an image of `size` (H, W) and choose where they stand."""
    height, width = size
    count = int(rng.choice([1, 2, 3, 4, 5], p=[0.2, 0.28, 0.26, 0.16, 0.1]))
    placed: list[_Placed] = []
    if rng.random() < CROWD_SHARE:
        label = int(rng.integers(len(CLASSES)))
        heap = _heap(CLASSES[label], rng.uniform(0.35, 0.6) * min(size), light, rng)
        placed.append(_place(heap, label, True, placed, size, rng))
        count = min(count, 3)
    for _ in range(count):
        label = int(rng.integers(len(CLASSES)))
        kind = rng.random()
        if kind < 0.1:
            side = rng.uniform(0.12, 0.28)
        elif kind < 0.9:
            side = rng.uniform(0.3, 0.75 - 0.05 * count)
        else:
            side = rng.uniform(0.6, 0.85)
        drawn = draw_object(CLASSES[label], side * (height * width) ** 0.5, light, rng)
        placed.append(_place(drawn, label, False, placed, size, rng))
    return placed


def _heap(name: str, side: float, light: Array, rng: Generator) -> DrawnObject:
    """Many small objects of one kind close together, over about `side` pixels."""
    unit = rng.uniform(0.2, 0.3) * side
    members = [
        draw_object(name, unit * rng.uniform(0.85, 1.15), light, rng) for _ in range(rng.integers(9, 17))
    ]
    canvas = int(side + 2 * unit)
    pixels = np.zeros((canvas, canvas, 3), np.float32)
    alpha = np.zeros((canvas, canvas), np.float32)
    for member in members:
        h, w = member.alpha.shape
        angle, reach = rng.uniform(0, 2 * np.pi), rng.random() ** 0.6 * side / 2.4
        left = int(np.clip(canvas / 2 + reach * np.cos(angle) - w / 2, 0, canvas - w))
        top = int(np.clip(canvas / 2 + 0.7 * reach * np.sin(angle) - h / 2, 0, canvas - h))
        window = slice(top, top + h), slice(left, left + w)
        cover = member.alpha[..., None]
        pixels[window] = pixels[window] * (1 - cover) + member.pixels * cover
        alpha[window] = np.maximum(alpha[window], member.alpha)
    x, y, w, h = cv2.boundingRect((alpha > 0).astype(np.uint8))
    window = slice(y, y + h), slice(x, x + w)
    opaque = pixels[window] / np.maximum(alpha[window], 1e-3)[..., None]  # its rim was mixed with black
    return DrawnObject(np.minimum(opaque, 255), alpha[window])


def _place(
    drawn: DrawnObject,
    label: int,
    iscrowd: bool,
    others: list[_Placed],
    size: tuple[int, int],
    rng: Generator,
) -> _Placed:
    """Choose where an object stands: of some random places, the one where it overlaps the others least.

    A few of them are placed at once, so that some objects hide others, and some leave the image.
    """
    height, width = size
    h, w = drawn.alpha.shape
    outside = rng.uniform(0, 0.35) if rng.random() < 0.15 else 0.0
    tries = int(rng.choice([1, 3, 8], p=[0.2, 0.3, 0.5]))
    best, least = _Placed(drawn, 0, 0, label, iscrowd), np.inf
    for _ in range(tries):
        left = round(rng.uniform(-outside * w, max(width - (1 - outside) * w, 1)))
        top = round(rng.uniform(-outside * h, max(height - (1 - outside) * h, 1)))
        overlap = 0.0
        for other in others:
            across = min(left + w, other.left + other.drawn.alpha.shape[1]) - max(left, other.left)
            down = min(top + h, other.top + other.drawn.alpha.shape[0]) - max(top, other.top)
            overlap += max(across, 0) * max(down, 0)
        if overlap < least:
            best, least = _Placed(drawn, left, top, label, iscrowd), overlap
    return best


def _windows(one: _Placed, size: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a placed object and the image meet: the part of the image, and the part of the object."""
    image, part = [], []
    for start, length, limit in zip((one.top, one.left), one.drawn.alpha.shape, size, strict=False):
        low, high = max(start, 0), max(min(start + length, limit), 0)
        image.append(slice(low, high))
        part.append(slice(low - start, high - start))
    return (image[0], image[1]), (part[0], part[1])


def _in_image(one: _Placed, solid: Array, size: tuple[int, int]) -> Array:
    """The pixels of the image, bool (H, W), on which the solid part, bool (h, w), of an object lies."""
    covered = np.zeros(size, bool)
    window, part = _windows(one, size)
    covered[window] = solid[part]
    return covered


def _without_specks(visible: Array) -> Array:
    """Leave out the tiny islands of a mask, bool (H, W), that would stretch the box of an object."""
    mask = visible.astype(np.uint8)
    x, y, w, h = cv2.boundingRect(mask)
    if w == 0:  # wholly hidden; cv2 crashes on an empty window
        return visible
    window = slice(y, y + h), slice(x, x + w)
    _, islands, stats, _ = cv2.connectedComponentsWithStats(mask[window])
    area = stats[:, cv2.CC_STAT_AREA]
    sides = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].min(1)
    keep = (area >= 0.05 * area[1:].sum()) & (sides >= 3)
    keep[0] = False  # the background
    mask[window] = keep[islands]
    return mask.astype(bool)


def _paint(picture: Array, one: _Placed, light: Array, rng: Generator) -> None:
    """Put an object and its soft shadow onto a picture (H, W, 3), in place."""
    h, w = one.drawn.alpha.shape
    reach = max(h, w)
    soft = max(0.04 * reach, 1.0)
    margin = int(0.22 * reach)
    cast = np.pad(one.drawn.alpha, margin)
    cast = cv2.blur(cv2.blur(cast, (2 * int(soft) + 1,) * 2), (2 * int(soft) + 1,) * 2)
    left = round(one.left - margin - 0.12 * reach * light[0])
    top = round(one.top - margin - 0.09 * reach * light[1])
    shadow = _Placed(DrawnObject(one.drawn.pixels, cast), left, top, one.label, False)
    window, part = _windows(shadow, picture.shape)
    picture[window] *= cv2.merge([1 - np.float32(rng.uniform(0.3, 0.6)) * cast[part]] * 3)

    window, part = _windows(one, picture.shape)
    cover = cv2.merge([one.drawn.alpha[part]] * 3)
    picture[window] += cover * (one.drawn.pixels[part] - picture[window])


def _annotation(visible: Array, one: _Placed) -> dict[str, Any]:
    """COCO's entry for the visible pixels, bool (H, W), of an object; a crowd's are run lengths."""
    mask = visible.astype(np.uint8)
    x, y, w, h = cv2.boundingRect(mask)
    segmentation: Any
    if one.iscrowd:
        segmentation = {'counts': _run_lengths(mask), 'size': list(mask.shape)}
    else:
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        outlines = [cv2.approxPolyDP(contour, 0.7, True).ravel().tolist() for contour in contours]
        segmentation = [outline for outline in outlines if len(outline) >= 6]
    return {
        'category_id': CATEGORY_IDS[one.label],
        'bbox': [x, y, w, h],
        'area': int(mask.sum()),
        'iscrowd': int(one.iscrowd),
        'segmentation': segmentation,
    }


def _run_lengths(mask: Array) -> list[int]:
    """COCO's uncompressed run lengths of a mask, uint8 (H, W): column by column, zeros first."""
    flat = mask.ravel(order='F')
    changes = np.flatnonzero(np.diff(flat)) + 1
    ends = np.concatenate([[0] if flat[0] == 0 else [0, 0], changes, [flat.size]])
    return [int(length) for length in np.diff(ends)]
