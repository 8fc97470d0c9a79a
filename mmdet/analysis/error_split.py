"""Where a detector loses AP, and how much of its certainty is deserved.

The split is that of "TIDE: A General Toolbox for Identifying Object Detection Errors" (Bolya et al., ECCV
2020, arXiv 2008.08115): every false positive is of one kind, and a kind weighs as much as AP50 would gain if
it alone were corrected.

M detections of all images, highest score first · D detections of an image · K classes
G objects without crowds, of all images or of one · boxes xywh in pixels of the original image
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from pycocotools import mask
from pycocotools.coco import COCO

from mmdet.analysis.calibration import calibration_error, sort_by_confidence

FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1
MOST_DETECTIONS = 100  # of a class in an image, as COCOeval counts them
RECALLS = np.linspace(0, 1, 101)
LEAST_SCORE = 0.05  # below it a detector hardly claims anything
NO_OBJECT = -1

RIGHT, CLS, LOC, BOTH, DUPLICATE, BACKGROUND, IGNORED = range(7)  # kinds of detections


class ErrorSplit(NamedTuple):
    """AP50, and what it would gain if all errors of one kind were corrected and no others; in [0, 1]."""

    ap50: float  # that of pycocotools; -1 where there are no objects
    cls: float
    loc: float
    both: float
    duplicate: float
    background: float
    missed: float
    false_positive: float  # every detection that is not right is removed
    false_negative: float  # no object counts but those that are found


class ScoreCalibration(NamedTuple):
    """Scores of a detector against the truth; all 0 without detections."""

    detections: int  # with a score of at least LEAST_SCORE
    confidence: float  # their mean score
    precision: float  # share of them that is right at IoU 0.5
    error: float  # expected calibration error


class Judged(NamedTuple):
    """Every detection and what is to be said of it, highest score first."""

    scores: np.ndarray  # (M,)
    labels: np.ndarray  # (M,) in [0, K)
    kinds: np.ndarray  # (M,) RIGHT, CLS, ...
    objects: np.ndarray  # (M,) row of the object that RIGHT has found, CLS or LOC claims; else NO_OBJECT
    object_labels: np.ndarray  # (G,) in [0, K)


def error_split(coco: COCO, records: Sequence[dict[str, Any]], category_ids: Sequence[int]) -> ErrorSplit:
    """Correct each kind of error alone and measure what AP50 gains (TIDE, Section 2.3).

    - cls, loc: the detection gets the class, or the box, of the object that it claims. Of all errors of these
      two kinds that claim one object the one with the highest score is corrected, the others are removed, and
      so is every claim to an object that is found. (The two kinds compete, as in the authors' tool.)
    - both, duplicate, background: the detection is removed.
    - missed: objects that are neither found nor claimed do not count.

    A class that has no objects left to count has AP 0 if something is detected in it, else 1.

    Args:
        coco: Annotations, from `read_annotations`.
        records: COCO result records; those of other images or categories are passed over.
        category_ids: Category of each label.
    """
    judged = judge(coco, records, category_ids)
    kinds, objects, object_labels = judged.kinds, judged.objects, judged.object_labels
    classes = np.unique(object_labels)
    if not len(classes):
        return ErrorSplit(-1.0, *[0.0] * 8)
    right = kinds == RIGHT
    found, named = np.zeros((2, len(object_labels)), bool)
    found[objects[right]] = True
    named[objects[objects != NO_OBJECT]] = True  # found or claimed
    claims = np.flatnonzero(np.isin(kinds, (CLS, LOC)) & ~found[objects])
    _, first = np.unique(objects[claims], return_index=True)  # per object the highest score
    best = np.zeros_like(right)
    best[claims[first]] = True
    nothing, everything = np.zeros_like(right), np.ones_like(found)

    def ap50(
        removed: np.ndarray = nothing, mended: np.ndarray = nothing, counted: np.ndarray = everything
    ) -> float:
        """AP50 without the detections `removed`, with `mended` (M,) made right, of objects `counted` (G,)."""
        kept = (kinds != IGNORED) & ~removed
        labels = np.where(mended, object_labels[objects], judged.labels)
        to_find = np.bincount(object_labels[counted], minlength=len(category_ids))
        return average_precision(labels[kept], (right | mended)[kept], to_find, classes)

    before = ap50()
    after = [ap50(removed=(kinds == kind) & ~best, mended=(kinds == kind) & best) for kind in (CLS, LOC)]
    after += [ap50(removed=kinds == kind) for kind in (BOTH, DUPLICATE, BACKGROUND)]
    after += [ap50(counted=named), ap50(removed=~right), ap50(counted=found)]
    return ErrorSplit(before, *(value - before for value in after))


def score_calibration(
    coco: COCO, records: Sequence[dict[str, Any]], category_ids: Sequence[int]
) -> ScoreCalibration:
    """Compare the scores of detections with the share of them that is right.

    Right is what AP50 counts as a true positive; what AP50 ignores, in crowds, is left out.

    Args:
        coco: Annotations, from `read_annotations`.
        records: COCO result records; those of other images or categories are passed over.
        category_ids: Category of each label.
    """
    judged = judge(coco, records, category_ids)
    chosen = (judged.kinds != IGNORED) & (judged.scores >= LEAST_SCORE)
    scores, right = torch.from_numpy(judged.scores[chosen]), torch.from_numpy(judged.kinds[chosen] == RIGHT)
    number = max(len(scores), 1)
    return ScoreCalibration(
        detections=len(scores),
        confidence=float(scores.sum()) / number,
        precision=float(right.sum()) / number,
        error=calibration_error(sort_by_confidence(scores, right)),
    )


def average_precision(
    labels: np.ndarray, right: np.ndarray, to_find: np.ndarray, classes: np.ndarray
) -> float:
    """AP as COCOeval computes it: precision at 101 recalls, the mean over `classes`.

    A class with nothing to find has AP 0 if something is detected in it, else 1.

    labels (M,), right (M,) bool, highest score first · to_find (K,) objects of each class · classes: labels
    """
    precisions = np.zeros((len(classes), len(RECALLS)))
    for at_recalls, label in zip(precisions, classes, strict=True):
        hit = right[labels == label]  # of this class
        if to_find[label]:
            true, false = hit.cumsum(), (~hit).cumsum()
            precision = true / (true + false + np.spacing(1))
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            reached = np.searchsorted(true / to_find[label], RECALLS)  # first detection with that recall
            at_recalls[:] = np.append(envelope, 0)[reached]
        else:
            at_recalls[:] = not len(hit)
    return float(precisions.mean())


def judge(coco: COCO, records: Sequence[dict[str, Any]], category_ids: Sequence[int]) -> Judged:
    """Match detections to objects at IoU 0.5 as COCOeval does, and tell of every other what is wrong with it.

    See `error_split` for the arguments.
    """
    label_of = {category: label for label, category in enumerate(category_ids)}
    by_image: dict[Any, list[dict[str, Any]]] = {image: [] for image in sorted(coco.imgs)}
    for record in records:
        if record['image_id'] in by_image and record['category_id'] in label_of:
            by_image[record['image_id']].append(record)
    parts, objects_before = [], 0
    for image, detections in by_image.items():
        gt = [one for one in coco.imgToAnns.get(image, []) if one['category_id'] in label_of]
        part = _judge_image(detections, gt, label_of)
        objects = np.where(part.objects == NO_OBJECT, NO_OBJECT, part.objects + objects_before)
        objects_before += len(part.object_labels)
        parts.append(part._replace(objects=objects))
    if not parts:
        parts = [_judge_image([], [], label_of)]
    whole = Judged(*map(np.concatenate, zip(*parts, strict=True)))
    order = np.argsort(-whole.scores, kind='stable')  # of equal scores the lower image id first, as COCOeval
    scores, labels, kinds, objects = (column[order] for column in whole[:4])
    return Judged(scores, labels, kinds, objects, whole.object_labels)


def _judge_image(
    detections: list[dict[str, Any]], gt: list[dict[str, Any]], label_of: dict[int, int]
) -> Judged:
    """Judge the detections of one image (TIDE, Section 2.2).

    Of several kinds that fit a detection the first one counts:

    - RIGHT: it is the first of its class to overlap the object with an IoU of at least 0.5
    - IGNORED: at least half of it lies in a crowd of its class
    - LOC: IoU in [0.1, 0.5) with the object of its class that it overlaps most, which it claims
    - CLS: IoU of at least 0.5 with an object of another class, which it claims
    - DUPLICATE: IoU of at least 0.5 with an object of its class that a higher score has found
    - BACKGROUND: IoU of at most 0.1 with everything
    - BOTH: the rest, IoU in (0.1, 0.5) with an object of another class
    """
    scores, labels, boxes = _highest_scores(detections, label_of)  # (D,), (D,), (D, 4)
    object_labels, object_boxes = _labels_and_boxes([one for one in gt if not one['iscrowd']], label_of)
    crowd_labels, crowd_boxes = _labels_and_boxes([one for one in gt if one['iscrowd']], label_of)
    iou = _iou(boxes, object_boxes, crowds=False)  # (D, G)
    same = labels[:, None] == object_labels
    own, other = np.where(same, iou, 0), np.where(same, 0, iou)
    best_own, best_other = own.max(1, initial=0), other.max(1, initial=0)  # (D,)
    inside = np.where(labels[:, None] == crowd_labels, _iou(boxes, crowd_boxes, crowds=True), 0)
    objects = _match(own)
    kinds = np.select(
        [
            objects != NO_OBJECT,
            inside.max(1, initial=0) >= FOREGROUND_IOU,
            (best_own >= BACKGROUND_IOU) & (best_own < FOREGROUND_IOU),
            best_other >= FOREGROUND_IOU,
            best_own >= FOREGROUND_IOU,
            np.maximum(best_own, best_other) <= BACKGROUND_IOU,
        ],
        [RIGHT, IGNORED, LOC, CLS, DUPLICATE, BACKGROUND],
        default=BOTH,
    )
    for kind, overlaps in ((LOC, own), (CLS, other)):
        claims = kinds == kind
        if claims.any():
            objects[claims] = overlaps[claims].argmax(1)
    return Judged(scores, labels, kinds, objects, object_labels)


def _match(own: np.ndarray) -> np.ndarray:
    """Each detection in turn takes the free object that it overlaps most, of equals the last, as COCOeval.

    own (D, G) IoU with objects of the same class, 0 with others, highest score first -> (D,) row or NO_OBJECT
    """
    objects = np.full(len(own), NO_OBJECT)
    free = own.copy()
    for detection in np.flatnonzero(own.max(1, initial=0) >= FOREGROUND_IOU):
        overlaps = free[detection]
        best = len(overlaps) - 1 - overlaps[::-1].argmax()
        if overlaps[best] >= FOREGROUND_IOU:
            objects[detection] = best
            free[:, best] = 0
    return objects


def _highest_scores(
    detections: list[dict[str, Any]], label_of: dict[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (D,), labels (D,) and boxes (D, 4) of the detections that count, highest score first."""
    scores = np.array([one['score'] for one in detections], np.float64)
    labels, boxes = _labels_and_boxes(detections, label_of)
    order = np.argsort(-scores, kind='stable')
    by_label = order[np.argsort(labels[order], kind='stable')]
    place = np.arange(len(order)) - np.searchsorted(labels[by_label], labels[by_label])  # within its class
    kept = np.zeros(len(order), bool)
    kept[by_label[place < MOST_DETECTIONS]] = True
    order = order[kept[order]]
    return scores[order], labels[order], boxes[order]


def _labels_and_boxes(rows: list[dict[str, Any]], label_of: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Of records or annotations: labels (R,) and boxes (R, 4)."""
    labels = np.array([label_of[row['category_id']] for row in rows], np.int64)
    return labels, np.array([row['bbox'] for row in rows], np.float64).reshape(-1, 4)


def _iou(boxes: np.ndarray, others: np.ndarray, crowds: bool) -> np.ndarray:
    """boxes (D, 4), others (G, 4) -> (D, G); with crowds the intersection over the area of `boxes`."""
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    return np.asarray(mask.iou(boxes, others, [int(crowds)] * len(others)))
