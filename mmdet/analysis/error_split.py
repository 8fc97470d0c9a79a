"""Split a detector's loss of AP by kind of error, and compare its scores with its precision.

The split is that of "TIDE: A General Toolbox for Identifying Object Detection Errors" (Bolya et al., ECCV
2020, arXiv 2008.08115), computed by hotcoco: every false positive is of one kind, and a kind weighs as much
as AP50 would gain if it alone were corrected.

M detections of all images
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO

from mmdet.analysis.calibration import calibration_error, reliability
from mmdet.evaluation.coco_eval import CocoDetections, hotcoco_evaluation

FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1
MIN_SCORE = 0.05  # below it a detector hardly claims anything
KINDS = {  # our name -> hotcoco's; the last two correct errors of all kinds
    'cls': 'Cls', 'loc': 'Loc', 'both': 'Both', 'duplicate': 'Dupe', 'background': 'Bkg', 'missed': 'Miss',
    'false_positive': 'FP', 'false_negative': 'FN',
}  # fmt: skip


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


def error_split(coco: COCO, counted: CocoDetections, category_ids: Sequence[int]) -> dict[str, float]:
    """Correct each kind of error alone and measure what AP50 gains (TIDE, Section 2.3).

    Args:
        coco: Annotations, from `to_pycocotools`.
        counted: From `match_detections`.
        category_ids: Category of each label.

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

    Args:
        scores: (M,) in [0, 1].
        right: (M,) bool, from `match_detections`.

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
