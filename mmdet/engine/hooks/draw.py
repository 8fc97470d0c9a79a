"""Draw the detections of a test beside the ground truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet.datasets.transforms import read_image
from mmdet.structures import NO_IMAGE, DetDataSample
from mmdet.visualization.canvas import write_picture
from mmdet.visualization.detections import draw_detections, draw_side_by_side


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
                file = dataset.image_file(sample.img_id)
                picture = self.draw(read_image(file, sample.ori_shape), sample, dataset)
                out = self.show_dir / file.relative_to(dataset.img_folder)
                write_picture(out.with_suffix('.jpg'), picture)

    def draw(self, image: np.ndarray, sample: DetDataSample, dataset: Any) -> np.ndarray:
        """Draw one image, BGR uint8 (H, W, 3), of a `CocoDataset`."""
        classes, found = dataset.metainfo['classes'], sample.pred_instances
        drawn = draw_detections(image, found.bboxes, found.labels, found.scores, classes, self.score_thr)
        if not len(dataset.objects()[0]):  # perhaps a set without annotations
            return drawn
        bboxes, labels = dataset.boxes_of(sample.img_id)
        truth = draw_detections(image, bboxes, labels, classes=classes)
        return draw_side_by_side(truth, drawn, ('ground truth', f'found, score from {self.score_thr:g}'))
