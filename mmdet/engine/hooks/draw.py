"""Draw the detections of a test beside the ground truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet.structures import NO_IMAGE, DetDataSample
from mmdet.visualization.canvas import write_picture
from mmdet.visualization.detections import draw_beside_truth


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
                more = '' if out.suffix == '.jpg' else '.jpg'  # a.jpg and a.png are two images
                write_picture(out.with_name(out.name + more), picture)
