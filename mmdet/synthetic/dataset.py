"""Generate a detection set in COCO's format and layout: drawn objects on photo-like backgrounds.

Image i of a split is a function of (seed, split, i, size) only. Boxes, areas and segmentations are those
of the *visible* pixels, as COCO's are; an object of which too little would be seen is not painted at all,
so everything in an image is annotated. Crowds are heaps of small objects of one kind with one box.

H, W: height and width of an image in pixels
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator, Philox

from mmdet.synthetic.backgrounds import draw_background, expose
from mmdet.synthetic.objects import KINDS, Array, Cutout, draw_object
from mmdet.visualization.canvas import find_free_place, write_picture

CLASSES = tuple(KINDS)
CATEGORY_IDS = (1, 2, 4, 5, 7, 11, 13, 16, 17, 22)  # with gaps, as COCO's have
SPLITS = ('train', 'val')

MIN_VISIBLE = 0.35  # share of its pixels that an object must show to be painted
MIN_SIDE = 8  # pixels of the visible box
EMPTY_SHARE, CROWD_SHARE = 0.04, 0.08  # images without objects, images with a crowd
JPEG_QUALITY = 90


class Scene(NamedTuple):
    """An image and its annotations, which still lack their ids."""

    image: Array  # (H, W, 3) uint8, BGR
    annotations: list[dict[str, Any]]


class _Placed(NamedTuple):
    """A drawn object with its upper left corner in the image; it may reach over the border."""

    cutout: Cutout
    left: int
    top: int
    label: int
    iscrowd: bool

    @property
    def bbox(self) -> tuple[int, int, int, int]:
        """Box xyxy in pixels of the image."""
        height, width = self.cutout.alpha.shape
        return self.left, self.top, self.left + width, self.top + height


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
        write_picture(file, scene.image, JPEG_QUALITY)
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
    placed.sort(key=lambda one: one.top + one.cutout.alpha.shape[0])  # the last one stands in front

    painted: list[_Placed] = []
    annotations: list[dict[str, Any]] = []
    hidden = np.zeros((height, width), bool)  # by what stands in front
    for one in reversed(placed):
        covered = np.zeros((height, width), bool)
        solid = one.cutout.alpha >= 0.5
        window, part = _windows(one.left, one.top, solid.shape, covered.shape)
        covered[window] = solid[part]
        visible = _remove_specks(covered & ~hidden)
        if visible.sum() < MIN_VISIBLE * solid.sum():
            continue
        annotation = _annotation(visible, one)
        if min(annotation['bbox'][2:]) < MIN_SIDE or not annotation['segmentation']:
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
        spans = (0.1, (0.12, 0.28)), (0.9, (0.3, 0.75 - 0.05 * count)), (1, (0.6, 0.85))
        low, high = next(span for limit, span in spans if kind < limit)
        side = rng.uniform(low, high)
        cutout = draw_object(CLASSES[label], side * (height * width) ** 0.5, light, rng)
        placed.append(_place(cutout, label, False, placed, size, rng))
    return placed


def _heap(name: str, side: float, light: Array, rng: Generator) -> Cutout:
    """Draw many small objects of one kind close together, over about `side` pixels."""
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
    return Cutout(np.minimum(opaque, 255), alpha[window])


def _place(
    cutout: Cutout, label: int, iscrowd: bool, others: list[_Placed], size: tuple[int, int], rng: Generator
) -> _Placed:
    """Choose where an object stands: of some random places, the one where it overlaps the others least.

    A few of them are placed at once, so that some objects hide others, and some leave the image.
    """
    height, width = size
    h, w = cutout.alpha.shape
    outside = rng.uniform(0, 0.35) if rng.random() < 0.15 else 0.0
    tries = int(rng.choice([1, 3, 8], p=[0.2, 0.3, 0.5]))
    most = max(width - (1 - outside) * w, 1), max(height - (1 - outside) * h, 1)
    corners = [
        (round(rng.uniform(-outside * w, most[0])), round(rng.uniform(-outside * h, most[1])))
        for _ in range(tries)
    ]
    places = np.array([(left, top, left + w, top + h) for left, top in corners])
    left, top = corners[find_free_place(places, np.array([other.bbox for other in others]).reshape(-1, 4))]
    return _Placed(cutout, left, top, label, iscrowd)


def _windows(
    left: int, top: int, shape: tuple[int, ...], size: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Find the part of an image (H, W) that a patch (h, w) covers, and the visible part of the patch."""
    spans = [
        (max(start, 0), max(min(start + length, limit), 0), start)
        for start, length, limit in zip((top, left), shape, size, strict=False)
    ]
    image = tuple(slice(low, high) for low, high, _ in spans)
    return image, tuple(slice(low - start, high - start) for low, high, start in spans)


def _remove_specks(visible: Array) -> Array:
    """Remove the tiny islands of a mask, bool (H, W), that would stretch the box of an object."""
    _, islands, stats, _ = cv2.connectedComponentsWithStats(visible.astype(np.uint8))
    area = stats[:, cv2.CC_STAT_AREA]
    sides = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].min(1)
    keep = (area >= 0.05 * area[1:].sum()) & (sides >= 3)
    keep[0] = False  # the background
    return np.asarray(keep[islands])


def _paint(picture: Array, one: _Placed, light: Array, rng: Generator) -> None:
    """Put an object and its soft shadow onto a picture (H, W, 3), in place."""
    reach = max(one.cutout.alpha.shape)
    margin, soft = int(0.22 * reach), 2 * int(max(0.04 * reach, 1.0)) + 1
    shadow = cv2.blur(cv2.blur(np.pad(one.cutout.alpha, margin), (soft, soft)), (soft, soft))
    left = round(one.left - margin - 0.12 * reach * light[0])
    top = round(one.top - margin - 0.09 * reach * light[1])
    window, part = _windows(left, top, shadow.shape, picture.shape)
    picture[window] *= cv2.merge([1 - np.float32(rng.uniform(0.3, 0.6)) * shadow[part]] * 3)
    window, part = _windows(one.left, one.top, one.cutout.alpha.shape, picture.shape)
    picture[window] += cv2.merge([one.cutout.alpha[part]] * 3) * (one.cutout.pixels[part] - picture[window])


def _annotation(visible: Array, one: _Placed) -> dict[str, Any]:
    """Make COCO's entry for the visible pixels, bool (H, W), of an object; a crowd's are run lengths."""
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
    """Encode a mask as COCO's uncompressed run lengths, uint8 (H, W): column by column, zeros first."""
    changes = np.flatnonzero(np.diff(mask.ravel(order='F'), prepend=0))
    return [int(length) for length in np.diff([0, *changes, mask.size])]
