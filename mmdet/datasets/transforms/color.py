"""Jitter colors: drawn here, applied by PackDetInputs to the visible pixels.

h, w size of a patch in pixels · patches are uint8 (h, w, 3) BGR
"""

import cv2
import numpy as np

from mmdet.datasets.transforms.window import ColorJitter, Image, Results
from mmdet.registry import TRANSFORMS

ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
STRIP = 64  # rows


@TRANSFORMS.register_module()
class PhotoMetricDistortion:
    """Draw a change of brightness, contrast, saturation, hue and channel order, each with probability 0.5.

    SSD applies the contrast before or after saturation and hue, by another coin. Here there is no coin: a
    factor common to the three channels leaves S and H alone, so both orders give the same pixels.

    Reads rng; writes color.

    Args:
        brightness_delta: Largest value that is added to or taken from a pixel.
        contrast_range: Smallest and largest factor.
        saturation_range: Smallest and largest factor of S.
        hue_delta: Largest shift of H, in degrees of 360.
    """

    def __init__(
        self,
        brightness_delta: float = 32,
        contrast_range: tuple[float, float] = (0.5, 1.5),
        saturation_range: tuple[float, float] = (0.5, 1.5),
        hue_delta: float = 18,
    ) -> None:
        self.brightness = (-brightness_delta, brightness_delta)
        self.contrast = contrast_range
        self.saturation = saturation_range
        self.hue = (-hue_delta, hue_delta)

    def __call__(self, results: Results) -> Results:
        """Draw the change."""
        numbers = results['rng'].random((5, 2)).tolist()
        done = [chance < 0.5 for chance, _ in numbers]
        at = [place for _, place in numbers]
        color = ColorJitter(
            brightness=_between(self.brightness, at[0]) if done[0] else 0.0,
            contrast=_between(self.contrast, at[1]) if done[1] else 1.0,
            saturation=_between(self.saturation, at[2]) if done[2] else 1.0,
            hue=_between(self.hue, at[3]) if done[3] else 0.0,
            channels=ORDERS[int(at[4] * len(ORDERS))] if done[4] else ORDERS[0],
        )
        return {**results, 'color': color}


def _between(limits: tuple[float, float], at: float) -> float:
    low, high = limits
    return low + (high - low) * at


def distort(patch: Image, color: ColorJitter) -> Image:
    """Change brightness, contrast, saturation and hue; the channel order is left to the caller.

    Rounded and clipped to [0, 255] once, at the end. Saturation needs no HSV: with m the largest of the
    three channels, scaling S by s turns a channel c into s c + (1 - s) m.

    patch uint8 (h, w, 3) BGR · returns the same
    """
    brightness, contrast, saturation, hue, _ = color
    if hue:
        return _distort_hue(patch, color)
    if saturation != 1:
        blue, green, red = cv2.split(patch)
        largest = cv2.max(cv2.max(blue, green), red)
        largest = cv2.merge([largest, largest, largest])
        offset = contrast * brightness
        return cv2.addWeighted(patch, contrast * saturation, largest, contrast * (1 - saturation), offset)
    if contrast != 1 or brightness:
        return cv2.addWeighted(patch, contrast, patch, 0, contrast * brightness)
    return patch


def _distort_hue(patch: Image, color: ColorJitter) -> Image:
    """Distort through HSV in float32 (8-bit hues would move colors by two gray levels).

    In strips: a float32 copy of the whole patch would leave the cache and come from freshly mapped memory,
    which takes five times as long.
    """
    # OpenCV wraps a hue above 360 degrees, but not always one below 0
    change = np.array([[1, 0, 0, color.hue % 360], [0, color.saturation, 0, 0], [0, 0, 1, 0]], np.float32)
    result = np.empty_like(patch)
    for top in range(0, len(patch), STRIP):
        strip = patch[top : top + STRIP].astype(np.float32)
        strip += np.float32(color.brightness)
        cv2.cvtColor(strip, cv2.COLOR_BGR2HSV, strip)
        cv2.transform(strip, change, strip)
        cv2.cvtColor(strip, cv2.COLOR_HSV2BGR, strip)
        cv2.addWeighted(strip, color.contrast, strip, 0, 0, result[top : top + STRIP], cv2.CV_8U)
    return result
