"""Draw the detections of a test beside the ground truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet.datasets.coco_format import read_coco
from mmdet.datasets.transforms import read_image
from mmdet.evaluation.coco_eval import to_pycocotools
from mmdet.structures import NO_IMAGE, DetDataSample
from mmdet.visualization.canvas import write_picture
from mmdet.visualization.detections import draw_detections, draw_side_by_side


class DrawHook(Hook):
    """Write a picture of each image: the ground truth, where there is some, beside what was found.

    Args:
        show_dir: Folder of the pictures; they keep the names that the annotation file gives the images.
        ann_file: Annotations of the images.
        classes: Name of each label.
        score_thr: Detections with a lower score are not drawn.
    """

    def __init__(self, show_dir: str | Path, ann_file: str, classes: Sequence[str], score_thr: float) -> None:
        self.show_dir = Path(show_dir)
        self.coco = to_pycocotools(read_coco(ann_file, boxes_needed=False))
        self.classes = tuple(classes)
        self.score_thr = score_thr
        names = {key: category['name'] for key, category in self.coco.cats.items()}
        self.labels = {key: self.classes.index(name) for key, name in names.items() if name in self.classes}

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[DetDataSample] | None = None,
    ) -> None:
        """Draw the images of one batch."""
        dataset = runner.test_loop.dataloader.dataset
        for sample in outputs or ():
            if sample.img_id != NO_IMAGE:
                image = read_image(dataset.image_file(sample.img_id), sample.ori_shape)
                file = self.show_dir / self.coco.imgs[sample.img_id]['file_name']
                write_picture(file.with_suffix('.jpg'), self.draw(image, sample))

    def draw(self, image: np.ndarray, sample: DetDataSample) -> np.ndarray:
        """Draw one image, BGR uint8 (H, W, 3)."""
        found = sample.pred_instances
        drawn = draw_detections(image, found.bboxes, found.labels, found.scores, self.classes, self.score_thr)
        if 'annotations' not in self.coco.dataset:
            return drawn
        objects = [one for one in self.coco.imgToAnns[sample.img_id] if one['category_id'] in self.labels]
        bboxes = np.array([one['bbox'] for one in objects], np.float32).reshape(-1, 4)
        bboxes[:, 2:] += bboxes[:, :2]
        labels = np.array([self.labels[one['category_id']] for one in objects], np.int64)
        truth = draw_detections(image, bboxes, labels, classes=self.classes)
        return draw_side_by_side(truth, drawn, ('ground truth', f'found, score from {self.score_thr:g}'))
