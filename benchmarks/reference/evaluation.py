"""COCO box evaluation, the baseline (MMDetection 2.10): a result file, and pycocotools on it.

D detections of an image · K classes · boxes xyxy in pixels of the original image
"""

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Found = tuple[int, NDArray[Any], NDArray[Any]]  # image id, (D, 5) boxes and scores, (D,) labels


def baseline_evaluation(
    ann_file: Path, found: Sequence[Found], result_file: Path
) -> tuple[list[float], list[float]]:
    """Compute the 12 numbers, and the AP of each class by category id, -1 without any object."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(ann_file))
        categories = sorted(coco.getCatIds())
        records = [
            {
                'image_id': img_id,
                'bbox': [x1, y1, x2 - x1, y2 - y1],
                'score': score,
                'category_id': categories[label],
            }
            for img_id, boxes, labels in found
            for (x1, y1, x2, y2, score), label in zip(boxes.tolist(), labels, strict=True)
        ]
        result_file.write_text(json.dumps(records))
        evaluation = COCOeval(coco, coco.loadRes(str(result_file)), 'bbox')
        evaluation.params.catIds = categories
        evaluation.params.imgIds = coco.getImgIds()
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval['precision']  # (IoU thresholds, recalls, classes, areas, most detections)
    of_classes = [of[of > -1] for of in np.moveaxis(precision[..., 0, -1], 2, 0)]
    return evaluation.stats.tolist(), [float(of.mean()) if of.size else -1.0 for of in of_classes]
