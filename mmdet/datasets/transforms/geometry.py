"""Augment geometry: expand, crop, resize and flip change the boxes and the window, never a pixel.

G boxes of the image · T tries · boxes xyxy in pixels of the window's output · sizes in pixels
Random numbers come from `results['rng']` only.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmdet.datasets.transforms.window import Results
from mmdet.registry import TRANSFORMS

TRIES = 50  # patches that MinIoURandomCrop tries before it chooses another IoU
ASPECT_RATIOS = (0.5, 2.0)  # height / width of a patch
EPS = 1e-6


@TRANSFORMS.register_module()
class Expand:
    """Put the image somewhere on a larger canvas of one color, which makes its objects smaller.

    Reads ori_shape, window, bboxes, rng; writes window, bboxes, fill.

    Args:
        mean: Color of the canvas.
        to_rgb: The color is given in the order R, G, B, as the preprocessor's mean is; else B, G, R.
        ratio_range: Side of the canvas over side of the image, smallest and largest.
        prob: How often it is done.

    Raises:
        ValueError: After a crop, which the larger canvas would undo, but for the boxes.
    """

    def __init__(
        self,
        mean: Sequence[float] = (0, 0, 0),
        to_rgb: bool = True,
        ratio_range: tuple[float, float] = (1, 4),
        prob: float = 0.5,
    ) -> None:
        smallest, largest = ratio_range
        if not 1 <= smallest <= largest:
            raise ValueError(f'Expand: ratio_range must be 1 or more and in order, but is {ratio_range}')
        first, second, third = mean
        self.fill = (third, second, first) if to_rgb else (first, second, third)
        self.ratio_range = (smallest, largest)
        self.prob = prob

    def __call__(self, results: Results) -> Results:
        """Draw the canvas and place the image on it."""
        window, (height, width) = results['window'], results['ori_shape']
        if window.left > 0 or window.top > 0 or window.right < width or window.bottom < height:
            raise ValueError(
                'Expand must stand before MinIoURandomCrop in the pipeline: it shows again what was cropped, '
                'without its boxes'
            )
        chance, at, along, down = results['rng'].random(4)
        if chance >= self.prob:
            return results
        smallest, largest = self.ratio_range
        ratio = smallest + (largest - smallest) * at
        left = int((window.width * ratio - window.width) * along)
        top = int((window.height * ratio - window.height) * down)
        right, bottom = int(window.width * ratio) - left, int(window.height * ratio) - top
        return {
            **results,
            'window': window.cut(-left, -top, right, bottom),
            'bboxes': results['bboxes'] + np.array([left, top, left, top], np.float32),
            'fill': self.fill,
        }


@TRANSFORMS.register_module()
class MinIoURandomCrop:
    """Cut a patch that overlaps every box by at least a drawn IoU, and keep the boxes centered in it.

    The IoU is drawn from 1 (no cut), `min_ious` and 0 (any patch that holds the center of a box). After 50
    patches that do not fit, another IoU is drawn. SSD's sampler, Section 2.2 of arXiv 1512.02325.

    Reads window, bboxes, labels, rng; writes window, bboxes, labels.

    Args:
        min_ious: What may be drawn besides 1 and 0.
        min_crop_size: Smallest side of a patch over side of the image.
    """

    def __init__(
        self, min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9), min_crop_size: float = 0.3
    ) -> None:
        self.modes = (1.0, *min_ious, 0.0)
        self.min_crop_size = min_crop_size

    def __call__(self, results: Results) -> Results:
        """Draw a patch and crop."""
        rng, bboxes = results['rng'], results['bboxes']
        height, width = results['window'].height, results['window'].width
        highest = self._highest_iou(bboxes, height, width)
        while (min_iou := self.modes[int(rng.random() * len(self.modes))]) != 1:
            numbers = rng.random((TRIES, 4))
            if min_iou > highest + EPS:
                continue
            patches = self._patches(numbers, height, width)
            fits = np.flatnonzero(_fit(patches, bboxes, min_iou))
            if len(fits):
                return _crop(results, patches[fits[0]])
        return results

    def _highest_iou(self, bboxes: NDArray[np.float32], height: int, width: int) -> float:
        """Bound the IoU of any patch with every box: area of the smallest box / of the smallest patch.

        Spares most of the rounds on photos with small objects.
        """
        smallest_patch = (width * self.min_crop_size - 1) * (height * self.min_crop_size - 1)
        if not len(bboxes) or min(width, height) * self.min_crop_size <= 1:
            return 1.0
        return float(_areas(bboxes).min()) / smallest_patch

    def _patches(self, numbers: NDArray[np.float64], height: int, width: int) -> NDArray[np.float32]:
        """Make patches of an acceptable shape, xyxy in whole pixels.

        numbers (T, 4) in [0, 1): width, height, left, top · returns (at most T, 4)
        """
        sides = np.array([width, height])
        size = sides * (self.min_crop_size + (1 - self.min_crop_size) * numbers[:, :2])  # (T, 2)
        start = (sides - size) * numbers[:, 2:]
        patches = np.concatenate([start, start + size], 1).astype(np.int64).astype(np.float32)
        ratio = size[:, 1] / size[:, 0]
        shaped = (ratio >= ASPECT_RATIOS[0]) & (ratio <= ASPECT_RATIOS[1])
        shaped &= (patches[:, 2:] > patches[:, :2]).all(1)
        return patches[shaped]


def _fit(patches: NDArray[np.float32], bboxes: NDArray[np.float32], min_iou: float) -> NDArray[np.bool_]:
    """Find the patches that hold the center of a box and overlap every box enough; all, when there is no box.

    patches (T, 4) · bboxes (G, 4) · returns (T,)
    """
    if not len(bboxes):
        return np.ones(len(patches), np.bool_)
    fits = _centered(patches, bboxes).any(1)
    if min_iou > 0:
        start, end = patches[:, None, :2], patches[:, None, 2:]  # (T, 1, 2)
        sides = np.maximum(np.minimum(end, bboxes[:, 2:]) - np.maximum(start, bboxes[:, :2]), 0)
        overlap = sides[..., 0] * sides[..., 1]  # (T, G)
        union = _areas(patches)[:, None] + _areas(bboxes) - overlap
        fits &= (overlap >= min_iou * union).all(1)
    return np.asarray(fits)


def _areas(bboxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute areas: (G, 4) -> (G,)."""
    return (bboxes[:, 2] - bboxes[:, 0]) * (bboxes[:, 3] - bboxes[:, 1])


def _centered(patches: NDArray[np.float32], bboxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Test whether the center of a box lies inside a patch: (T, 4) and (G, 4) -> (T, G)."""
    center = (bboxes[:, :2] + bboxes[:, 2:]) / 2  # (G, 2)
    inside: NDArray[np.bool_] = (center > patches[:, None, :2]) & (center < patches[:, None, 2:])
    return inside[..., 0] & inside[..., 1]


def _crop(results: Results, patch: NDArray[np.float32]) -> Results:
    left, top, right, bottom = (int(side) for side in patch)
    kept = _centered(patch[None], results['bboxes'])[0]
    corner = np.array([left, top, left, top], np.float32)
    end = np.array([right, bottom, right, bottom], np.float32)
    bboxes = np.minimum(np.maximum(results['bboxes'][kept], corner), end)  # np.clip takes three times as long
    return {
        **results,
        'window': results['window'].cut(left, top, right, bottom),
        'bboxes': bboxes - corner,
        'labels': results['labels'][kept],
        'ann_ids': results['ann_ids'][kept],
    }


@TRANSFORMS.register_module()
class Resize:
    """Resize to a fixed size, or to fit into one.

    Reads window, bboxes; writes window, bboxes.

    Args:
        scale: (width, height) of the output. With `keep_ratio` its longer side limits the longer side of
            the image and its shorter one the shorter.
        keep_ratio: Keep the shape of the image.
    """

    def __init__(self, scale: tuple[int, int], keep_ratio: bool = False) -> None:
        self.scale = (scale[0], scale[1])
        self.keep_ratio = keep_ratio

    def __call__(self, results: Results) -> Results:
        """Resize."""
        window = results['window']
        width, height = self.scale
        if self.keep_ratio:
            longer, shorter = max(window.height, window.width), min(window.height, window.width)
            factor = min(max(self.scale) / longer, min(self.scale) / shorter)
            width = max(1, int(window.width * factor + 0.5))
            height = max(1, int(window.height * factor + 0.5))
        factors = np.array([width / window.width, height / window.height] * 2, np.float32)
        limits = np.array([width, height, width, height], np.float32)
        return {
            **results,
            'window': window._replace(height=height, width=width),
            'bboxes': np.minimum(np.maximum(results['bboxes'] * factors, 0), limits),
        }


@TRANSFORMS.register_module()
class RandomFlip:
    """Flip an image horizontally.

    Reads window, bboxes, rng; writes window, bboxes.

    Args:
        prob: How often.
    """

    def __init__(self, prob: float = 0.5) -> None:
        self.prob = prob

    def __call__(self, results: Results) -> Results:
        """Draw whether to flip, and flip."""
        if results['rng'].random() >= self.prob:
            return results
        window, bboxes = results['window'], results['bboxes'].copy()
        bboxes[:, 0] = window.width - results['bboxes'][:, 2]
        bboxes[:, 2] = window.width - results['bboxes'][:, 0]
        return {**results, 'window': window._replace(flip=not window.flip), 'bboxes': bboxes}
