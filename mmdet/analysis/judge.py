"""Judge detections: which are right, what their errors cost, and what is confused with what.

The split of the errors is that of "TIDE: A General Toolbox for Identifying Object Detection Errors" (Bolya et
al., ECCV 2020, arXiv 2008.08115), computed by hotcoco: every false positive is of one kind, and a kind weighs
as much as AP50 would gain if it alone were corrected.

M detections that count · G objects · K classes · S score thresholds. An object is hit at IoU 0.5.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO

from mmdet.analysis.calibration import calibration_error, reliability
from mmdet.evaluation.coco_eval import (
    BoxScores,
    CocoDetections,
    evaluate_boxes,
    from_records,
    hotcoco_evaluation,
    mean_precision,
)
from mmdet.evaluation.coco_metric import CocoMetric

METRICS = ('AP', 'AP50', 'AP75', 'AP_s', 'AP_m', 'AP_l', 'AR_1', 'AR_10', 'AR_100', 'AR_s', 'AR_m', 'AR_l')
THRESHOLDS = tuple(f'{percent / 100:.2f}' for percent in range(50, 100, 5))
SCORES = np.linspace(0, 1, 1001)  # (S,) thresholds
FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1
MIN_SCORE = 0.05  # below it a detector hardly claims anything
KINDS = {  # our name -> hotcoco's; the last two correct errors of all kinds
    'cls': 'Cls', 'loc': 'Loc', 'both': 'Both', 'duplicate': 'Dupe', 'background': 'Bkg', 'missed': 'Miss',
    'false_positive': 'FP', 'false_negative': 'FN',
}  # fmt: skip
ERRORS_NOTE = f"""Percent points of AP50 that would be gained if the errors of that kind alone were corrected:
the larger, the more that kind costs (TIDE, arXiv 2008.08115; an object is hit at IoU {FOREGROUND_IOU},
background below {BACKGROUND_IOU}).

cls: right box, wrong class · loc: right class, wrong box · both: both wrong · duplicate: of an object that is
found already · background: of nothing · missed: an object that is neither found nor nearly found.
False positive removes all wrong detections at once, false negative leaves out all objects that are not found;
the kinds do not add up to them."""


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


def match_detections(
    coco: COCO, detections: CocoDetections, category_ids: Sequence[int]
) -> tuple[CocoDetections, np.ndarray]:
    """Find the detections that AP50 counts, and whether each is right.

    AP50 ignores detections in crowds, and of a class in an image all but the 100 with the highest scores.

    Args:
        coco: Annotations, from `to_pycocotools`.
        detections: As a result file holds them; those of other images or categories are left out.
        category_ids: Category of each label.

    Returns:
        The detections that count, in their order, and a bool (M,): whether each is a true positive.

    Raises:
        ImportError: hotcoco is not installed.
    """
    known = np.isin(detections.image_ids, list(coco.imgs)) & np.isin(detections.category_ids, category_ids)
    detections = CocoDetections(*(column[known] for column in detections))
    found: dict[int, bool] = {}
    for part in _evaluate(coco, detections, category_ids).evalImgs:
        columns = part['dtIds'], part['dtMatched'][0], part['dtIgnore'][0]
        found |= {number - 1: right for number, right, ignored in zip(*columns, strict=True) if not ignored}
    rows = np.array(sorted(found), np.int64)
    right = np.array([found[row] for row in rows.tolist()], bool)
    return CocoDetections(*(column[rows] for column in detections)), right


def numbers(judged: Judged) -> dict[str, Any]:
    """Collect COCO's numbers of detections, the split of their errors and the calibration of their scores."""
    return {
        'metrics': dict(zip(METRICS, map(float, judged.scores.stats), strict=True)),
        'ap_per_iou': dict(zip(THRESHOLDS, map(mean_precision, judged.scores.precision), strict=True)),
        'errors': error_split(judged.coco, judged.counted, judged.category_ids),
        'calibration': score_calibration(judged.counted.scores, judged.right),
    }


def error_split(coco: COCO, counted: CocoDetections, category_ids: Sequence[int]) -> dict[str, float]:
    """Correct each kind of error alone and measure what AP50 gains (TIDE, Section 2.3).

    Returns:
        'ap50', and the gain of AP50 for each of `KINDS`, in [0, 1]. Without objects 'ap50' is -1. A class of
        which nothing is detected keeps AP 0, also where its objects do not count.
    """
    evaluation = _evaluate(coco, counted, category_ids, crowds=False)
    if not evaluation.coco_gt.anns:
        return {'ap50': -1.0, **dict.fromkeys(KINDS, 0.0)}
    if not len(counted.scores):
        return {'ap50': 0.0, **dict.fromkeys(KINDS, 0.0), 'missed': 1.0, 'false_negative': 1.0}
    found = evaluation.tide_errors(FOREGROUND_IOU, BACKGROUND_IOU)
    return {'ap50': found['ap_base'], **{name: found['delta_ap'][kind] for name, kind in KINDS.items()}}


def score_calibration(scores: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Compare the scores of detections with the share of them that is right at IoU 0.5.

    scores (M,) in [0, 1] · right (M,) bool, from `match_detections`

    Returns:
        Of the 'detections' with a score of at least `MIN_SCORE` their number, mean score 'confidence', share
        of right ones 'precision' and expected calibration 'error'; all 0 without detections.
    """
    claimed = torch.from_numpy(scores >= MIN_SCORE)
    confidence, hit = torch.from_numpy(scores)[claimed], torch.from_numpy(right)[claimed]
    count = max(len(hit), 1)
    return {
        'detections': len(hit),
        'confidence': float(confidence.sum()) / count,
        'precision': float(hit.sum()) / count,
        'error': calibration_error(reliability(confidence, hit)),
    }


def _evaluate(
    coco: COCO, detections: CocoDetections, category_ids: Sequence[int], crowds: bool = True
) -> Any:
    """Match detections to objects of all sizes at IoU 0.5; returns hotcoco's evaluation."""
    evaluation = hotcoco_evaluation(coco, detections, category_ids, crowds)
    evaluation.params.iouThrs, evaluation.params.areaRng = [FOREGROUND_IOU], [[0, 1e10]]
    evaluation.params.areaRngLbl = ['all']
    evaluation.evaluate()
    return evaluation


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
