"""Draw the detections of a test beside the ground truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmdet.structures import NO_IMAGE, DetDataSample
from mmdet.visualization.canvas import tile, with_title, write_picture
from mmdet.visualization.detections import draw_detections


class DrawHook(Hook):
    """Write a picture of each image: the ground truth, where there is some, beside what was found.

    Args:
        show_dir: Folder of the pictures; they keep the names that the annotation file gives the images.
        score_thr: Detections with a lower score are not drawn.
    """

    def __init__(self, show_dir: str | Path, score_thr: float) -> None:
        self.show_dir = Path(show_dir)
        self.score_thr = score_thr

    def after_test_iter(
        self, runner: Runner, batch_idx: int, outputs: Sequence[DetDataSample] | None = None, **_: Any
    ) -> None:
        """Draw the images of one batch."""
        dataset = runner.test_loop.dataloader.dataset
        for sample in outputs or ():
            if sample.img_id != NO_IMAGE:
                file, image = dataset.image_file(sample.img_id), dataset.read(sample.img_id)
                picture = draw_beside_truth(
                    image, dataset, sample.img_id, sample.pred_instances, self.score_thr
                )
                out = self.show_dir / file.relative_to(dataset.img_folder)
                write_picture(out.with_suffix('.jpg'), picture)


def draw_beside_truth(
    image: np.ndarray,
    dataset: Any,
    img_id: int,
    found: InstanceData,
    score_thr: float,
    scale: float = 1.0,
) -> np.ndarray:
    """Draw the detections of an image beside its ground truth, where the set has some.

    Args:
        image: uint8 (H, W, 3), BGR.
        dataset: The `CocoDataset` of the image.
        img_id: Its id.
        found: bboxes (D, 4) xyxy in pixels of the original image, labels (D,), scores (D,).
        score_thr: Detections with a lower score are not drawn.
        scale: Side of `image` over that of the original.

    Returns:
        uint8 (H', W', 3), BGR.
    """
    classes = dataset.metainfo['classes']
    drawn = draw_detections(image, found.bboxes * scale, found.labels, found.scores, classes, score_thr)
    if not len(dataset.bboxes):  # perhaps a set without annotations
        return drawn
    bboxes, labels = dataset.boxes_of(img_id)
    truth = draw_detections(image, bboxes * scale, labels, classes=classes)
    found_title = f'found, score from {score_thr:g}'
    return tile([with_title(truth, 'ground truth'), with_title(drawn, found_title)], columns=2)
