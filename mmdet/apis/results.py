"""What was found in one picture: as COCO's records, or drawn on it.

D detections
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from mmdet.datasets import BadImageError
from mmdet.datasets.transforms import read_image
from mmdet.files import suggest
from mmdet.structures import DetDataSample
from mmdet.visualization.canvas import write_picture
from mmdet.visualization.detections import draw_detections

Picture = str | Path | Image.Image | np.ndarray  # a file, Pillow's, or uint8 (H, W, 3) BGR as OpenCV reads it


class DetectionResult(DetDataSample):
    """Detections of one picture, from `inference_detector`.

    Meta information beside that of `DetDataSample`: `classes` and `category_ids`, name and category of each
    label.
    """

    def to_coco(self, image_id: int | None = None) -> list[dict[str, Any]]:
        """Convert to COCO's result records, which `COCO.loadRes` of pycocotools reads.

        Args:
            image_id: The image's id in the data set; default `img_id`, its place in the list, from 0.

        Returns:
            D dicts of `image_id`, `category_id`, `bbox` (xywh in pixels of the original image) and `score`.
            Categories are those of the training annotations, which a checkpoint holds; where it does not
            (MMDetection's, older ones) they are label + 1.
        """
        found = self.pred_instances
        columns = (found.labels.tolist(), found.scores.tolist(), found.bboxes.tolist())
        return [
            {
                'image_id': self.img_id if image_id is None else image_id,
                'bbox': [x1, y1, x2 - x1, y2 - y1],
                'score': score,
                'category_id': self.category_ids[label],
            }
            for label, score, (x1, y1, x2, y2) in zip(*columns, strict=True)
        ]

    def draw(
        self, file: str | Path | None = None, image: Picture | None = None, score_thr: float = 0.3
    ) -> np.ndarray:
        """Draw the boxes with names and scores on the picture.

        Args:
            file: Where to write it, such as 'found.jpg'; None: nowhere.
            image: The picture; needed where it did not come from a file, for results do not keep pixels.
            score_thr: Boxes that score less are left out.

        Returns:
            uint8 (H, W, 3) BGR.

        Raises:
            ValueError: No `image`, and the picture did not come from a file; or one of another size.
            BadImageError: The file is missing by now.
            OSError: `file` cannot be written.
        """
        source = self.get('img_path') if image is None else image
        if source is None:
            raise ValueError('this picture did not come from a file: give it to draw(image=...)')
        pixels = read_picture(source)
        if pixels.shape[:2] != self.ori_shape:
            raise ValueError(
                f'the detections are of an image of {self.ori_shape} (h, w), this one is {pixels.shape[:2]}'
            )
        found = self.pred_instances
        drawn = draw_detections(pixels, found.bboxes, found.labels, found.scores, self.classes, score_thr)
        if file is not None:
            write_picture(Path(file), drawn)
        return drawn


def read_picture(picture: Picture) -> np.ndarray:
    """Make uint8 (H, W, 3) BGR of a picture, turned as its EXIF data says.

    Raises:
        BadImageError: A file is missing or holds no image; names it.
        ValueError: Not 8 bits, or no picture.
    """
    if isinstance(picture, (str, Path)):
        try:
            return read_image(Path(picture))
        except BadImageError as error:
            raise BadImageError(f'{picture}: {error}.{suggest(picture)}') from error
    if isinstance(picture, Image.Image):
        if picture.mode.startswith(('I', 'F')):
            raise ValueError(
                f'a picture of mode {picture.mode} has more than 8 bits: scale it to 0 ... 255 and '
                "convert it to 'L'"
            )
        return cv2.cvtColor(np.array(ImageOps.exif_transpose(picture).convert('RGB')), cv2.COLOR_RGB2BGR)
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(
            'an image is a file, a PIL image, or uint8 (H, W, 3), BGR; '
            f'this one is {array.dtype} {array.shape}. '
            'cv2.imread and cv2.cvtColor(img, cv2.COLOR_GRAY2BGR) give such images'
        )
    return array
