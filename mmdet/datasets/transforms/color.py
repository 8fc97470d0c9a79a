"""Changes of colour: drawn here, done by PackDetInputs on the pixels that are seen.

h, w size of a patch in pixels · patches are uint8 (h, w, 3) BGR
"""

from itertools import permutations

import cv2
import numpy as np
from numpy.typing import NDArray

from mmdet.datasets.transforms.window import Colour, Results
from mmdet.registry import TRANSFORMS

ORDERS = tuple(permutations(range(3)))


@TRANSFORMS.register_module()
class PhotoMetricDistortion:
    """Draws a change of brightness, contrast, saturation, hue and channel order, each with probability 0.5.

    SSD applies the contrast before or after saturation and hue, by another coin. Here there is no coin: a
    factor common to the three channels leaves S and H alone, so both orders give the same pixels.

    Reads rng; writes colour.

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
        self.unchanged = Colour()
        self.ranges = (
            (-brightness_delta, brightness_delta),
            contrast_range,
            saturation_range,
            (-hue_delta, hue_delta),
        )

    def __call__(self, results: Results) -> Results:
        numbers = results['rng'].random(10).tolist()
        chances, places = numbers[:5], numbers[5:]
        drawn = [
            low + (high - low) * place if chance < 0.5 else unchanged
            for chance, place, (low, high), unchanged in zip(
                chances, places, self.ranges, Colour(), strict=False
            )
        ]
        order = ORDERS[int(places[4] * len(ORDERS))] if chances[4] < 0.5 else ORDERS[0]
        return {**results, 'colour': Colour(*drawn, order)}


def distort(patch: NDArray[np.uint8], colour: Colour) -> NDArray[np.uint8]:
    """Change brightness, contrast, saturation and hue; the channel order is left to the caller.

    Rounded and clipped to [0, 255] once, at the end. Saturation needs no HSV: with m the largest of the
    three channels, scaling S by s turns a channel c into s c + (1 - s) m.

    patch uint8 (h, w, 3) BGR · returns the same
    """
    brightness, contrast, saturation, hue, _ = colour
    if hue:
        hsv = cv2.cvtColor(patch.astype(np.float32) + np.float32(brightness), cv2.COLOR_BGR2HSV)
        # OpenCV wraps a hue above 360 degrees, but not always one below 0
        change = np.array([[1, 0, 0, hue % 360], [0, saturation, 0, 0], [0, 0, 1, 0]], np.float32)
        bgr = cv2.cvtColor(cv2.transform(hsv, change), cv2.COLOR_HSV2BGR)
        return cv2.addWeighted(bgr, contrast, bgr, 0, 0, dtype=cv2.CV_8U)
    if saturation != 1:
        blue, green, red = cv2.split(patch)
        largest = cv2.max(cv2.max(blue, green), red)
        largest = cv2.merge([largest, largest, largest])
        offset = contrast * brightness
        return cv2.addWeighted(patch, contrast * saturation, largest, contrast * (1 - saturation), offset)
    if contrast != 1 or brightness:
        return cv2.addWeighted(patch, contrast, patch, 0, contrast * brightness)
    return patch
