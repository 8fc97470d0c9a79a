"""Judge a detector's detections: which are right, at which score threshold, and what is confused with what.

M detections that count · G objects · K classes · S score thresholds. An object is hit at IoU 0.5.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from mmdet.analysis.comparison import METRICS, THRESHOLDS
from mmdet.analysis.error_split import FOREGROUND_IOU, error_split, match_detections, score_calibration
from mmdet.evaluation.coco_eval import (
    BoxScores,
    CocoDetections,
    evaluate_boxes,
    from_records,
    hotcoco_evaluation,
    mean_precision,
)
from mmdet.evaluation.coco_metric import CocoMetric

SCORES = np.linspace(0, 1, 1001)  # (S,) thresholds


class Judged(NamedTuple):
    """The detections of a set beside its objects."""

    coco: COCO
    category_ids: Sequence[int]  # of each label
    objects: NDArray[np.int64]  # (G, 2) image and category of those to be found; crowds are not
    scores: BoxScores
    counted: CocoDetections  # (M,) those that COCO counts: none in crowds
    right: NDArray[np.bool_]  # (M,)


class Curves(NamedTuple):
    """What is right of the detections that score each threshold or more; NaN where there are none."""

    precision: NDArray[np.float64]  # (S,)
    recall: NDArray[np.float64]  # (S,) NaN without objects
    f1: NDArray[np.float64]  # (S,) harmonic mean of both

    def best(self) -> int | None:
        """Find the threshold with the best F1, a place in `SCORES`; None where nothing is right.

        Of equal ones the highest, which lets the fewest false detections through on other photos.
        """
        f1 = np.nan_to_num(self.f1)
        place = int(np.flatnonzero(f1 == f1.max())[-1])
        return place if f1[place] > 0 else None

    def at(self, place: int) -> dict[str, float | None]:
        """Read precision, recall and F1 at a threshold; None where there is none."""
        values = {name: float(curve[place]) for name, curve in self._asdict().items()}
        return {name: None if np.isnan(value) else value for name, value in values.items()}


def judge(metric: CocoMetric, records: Sequence[dict[str, Any]]) -> Judged:
    """Find out which detections of a result file are right.

    Args:
        metric: Holds the annotations.
        records: COCO's result records. Those with NaN in them are wrong; they are left out of `counted`.

    Raises:
        ImportError: hotcoco is not installed.
    """
    coco, category_ids, found = metric.coco, metric.category_ids, from_records(records)
    finite = np.isfinite(found.bboxes).all(1) & np.isfinite(found.scores)
    whole = CocoDetections(*(column[finite] for column in found))
    objects = [
        (one['image_id'], one['category_id'])
        for one in coco.dataset['annotations']
        if not one['iscrowd'] and one['category_id'] in category_ids
    ]
    return Judged(
        coco,
        category_ids,
        np.array(objects, np.int64).reshape(-1, 2),
        evaluate_boxes(coco, found, category_ids),
        *match_detections(coco, whole, category_ids),
    )


def numbers(judged: Judged) -> dict[str, Any]:
    """Collect COCO's numbers of detections, the split of their errors and the calibration of their scores."""
    return {
        'metrics': dict(zip(METRICS, map(float, judged.scores.stats), strict=True)),
        'ap_per_iou': dict(zip(THRESHOLDS, map(mean_precision, judged.scores.precision), strict=True)),
        'errors': error_split(judged.coco, judged.counted, judged.category_ids),
        'calibration': score_calibration(judged.counted.scores, judged.right),
    }


def curves(judged: Judged, category_ids: Sequence[int]) -> Curves:
    """Compute precision, recall and F1 over the score threshold, of some categories together."""
    chosen = np.isin(judged.counted.category_ids, category_ids)
    scores, right = judged.counted.scores[chosen], judged.right[chosen]
    found, hit = (len(some) - np.searchsorted(np.sort(some), SCORES) for some in (scores, scores[right]))
    total = np.isin(judged.objects[:, 1], category_ids).sum()
    with np.errstate(invalid='ignore'):  # 0 / 0
        return Curves(hit / found, hit / total, 2 * hit / (found + total))


def confusion_matrix(judged: Judged, threshold: float) -> NDArray[np.int64]:
    """Count what objects are found as: rows are true classes, columns found ones, the last of both nothing.

    Unlike in AP a detection may hit an object of another class, at IoU 0.5, the highest score first.

    Returns:
        (K + 1, K + 1)
    """
    evaluation = hotcoco_evaluation(judged.coco, judged.counted, judged.category_ids, crowds=False)
    all_of_them = max(len(judged.counted.scores), 1)
    found = evaluation.confusion_matrix(FOREGROUND_IOU, max_det=all_of_them, min_score=threshold)
    places = np.searchsorted(np.unique(judged.category_ids), judged.category_ids)  # ordered by id -> labels
    order = np.append(places, len(places))
    return np.asarray(found['matrix'], np.int64)[order[:, None], order]


def rank_photos(judged: Judged, threshold: float) -> list[tuple[int, int, int]]:
    """List image id, missed objects and false detections of the photos with errors, most errors first."""
    kept = judged.counted.scores >= threshold
    image_ids = judged.counted.image_ids
    false = Counter(image_ids[kept & ~judged.right].tolist())
    missed = Counter(judged.objects[:, 0].tolist())
    missed.subtract(image_ids[kept & judged.right].tolist())
    errors = {img_id: missed[img_id] + false[img_id] for img_id in judged.coco.imgs}
    worst = sorted(errors, key=lambda img_id: -errors[img_id])
    return [(img_id, missed[img_id], false[img_id]) for img_id in worst if errors[img_id]]
