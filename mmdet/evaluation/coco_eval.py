"""Score detections as COCO defines it: average precision and recall.

M detections of all images · T IoU thresholds, 0.5 to 0.95 · R recalls · K classes
boxes xywh in pixels of the original image
"""

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.logging import MMLogger, print_log
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet.datasets.coco_format import CocoFile

ALL_AREAS, MOST_DETECTIONS = 0, -1  # of the last two dimensions of COCO's table of precisions


class CocoDetections(NamedTuple):
    """Detections of all images, in the order of a result file."""

    image_ids: np.ndarray  # (M,)
    category_ids: np.ndarray  # (M,)
    bboxes: np.ndarray  # (M, 4) float64, xywh
    scores: np.ndarray  # (M,) float64


class BoxScores(NamedTuple):
    """COCO's numbers of detections; -1 where there is no object to find."""

    stats: np.ndarray  # (12,) AP, AP50, AP75, AP of small, medium, large; AR at 1, 10, 100, of small, ...
    precision: np.ndarray  # (T, R, K) of all areas, at most 100 detections of a class in an image


def evaluate_boxes(coco: COCO, detections: CocoDetections, category_ids: Sequence[int]) -> BoxScores:
    """Score detections over every image of `coco`; no detection at all gives precision and recall 0.

    hotcoco computes the numbers where it is installed, else pycocotools. They are the same to the last bit:
    equal scores and equal overlaps are resolved in the same order. pycocotools also takes detections with
    NaN in them, which hotcoco refuses or orders otherwise. The log says when pycocotools is used, and why.

    Args:
        coco: Annotations, from `to_pycocotools`.
        detections: Those of other images or categories are passed over.
        category_ids: Category of each class: the order of the last dimension of `precision`.
    """
    if np.isnan(detections.bboxes).any() or np.isnan(detections.scores).any():
        reason = 'some of their boxes or scores are NaN'
    else:
        try:
            return score_with_hotcoco(coco, detections, category_ids)
        except ImportError as error:
            reason = f'hotcoco, which is faster, cannot be imported ({error}): pip install hotcoco'
    MMLogger.get_current_instance().info(f'pycocotools scores the detections: {reason}')
    return score_with_pycocotools(coco, detections, category_ids)


def mean_precision(precision: np.ndarray) -> float:
    """Average a part of `BoxScores.precision`; -1 where it covers no object."""
    covered = precision[precision > -1]
    return float(covered.mean()) if covered.size else -1.0


def score_with_hotcoco(coco: COCO, detections: CocoDetections, category_ids: Sequence[int]) -> BoxScores:
    """Score with hotcoco; see `evaluate_boxes`.

    Raises:
        ImportError: hotcoco is not installed.
    """
    return _run(hotcoco_evaluation(coco, detections, category_ids), category_ids)


def hotcoco_evaluation(
    coco: COCO, detections: CocoDetections, category_ids: Sequence[int], crowds: bool = True
) -> Any:
    """Build the `hotcoco.COCOeval` of detections; those of other images or categories are left out.

    hotcoco gets the places of images and categories in the order of their ids, from 1: of ids themselves it
    takes no negative ones, and those of detections only up to 2^53, as they travel in a table of floats. It
    numbers the detections that are not left out from 1.

    Args:
        coco: Annotations, from `to_pycocotools`.
        detections: As a result file holds them.
        category_ids: Category of each class.
        crowds: False leaves the crowds of `coco` out.

    Raises:
        ImportError: hotcoco is not installed.
    """
    import hotcoco  # optional

    image_places = {img_id: place for place, img_id in enumerate(sorted(coco.imgs), start=1)}
    category_places = {category: place for place, category in enumerate(sorted(set(category_ids)), start=1)}
    objects = [
        one
        for one in coco.dataset['annotations']
        if one['image_id'] in image_places
        and one['category_id'] in category_places
        and (crowds or not one['iscrowd'])
    ]
    truth = hotcoco.COCO.from_arrays(
        [{'id': place, 'file_name': '', 'width': 1, 'height': 1} for place in image_places.values()],
        [{'id': place, 'name': str(place)} for place in category_places.values()],
        _places([one['image_id'] for one in objects], image_places),
        _places([one['category_id'] for one in objects], category_places),
        np.array([one['bbox'] for one in objects], np.float64).reshape(-1, 4),
        area=np.array([one['area'] for one in objects], np.float64),
        iscrowd=np.array([one['iscrowd'] for one in objects], bool),
    )
    images = _places(detections.image_ids.tolist(), image_places)  # (M,)
    categories = _places(detections.category_ids.tolist(), category_places)
    table = np.column_stack([images, detections.bboxes, detections.scores, categories])  # (M, 7)
    return hotcoco.COCOeval(truth, truth.load_res(table[(images > 0) & (categories > 0)]), 'bbox')


def score_with_pycocotools(coco: COCO, detections: CocoDetections, category_ids: Sequence[int]) -> BoxScores:
    """Score with pycocotools, without `COCO.loadRes`, which refuses empty lists and unknown images."""
    found = COCO()
    found.dataset = {
        'images': coco.dataset['images'],
        'categories': coco.dataset['categories'],
        'annotations': [
            {**record, 'id': number, 'area': record['bbox'][2] * record['bbox'][3], 'iscrowd': 0}
            for number, record in enumerate(as_records(detections), start=1)
        ],
    }
    _index(found)
    evaluation = COCOeval(coco, found, 'bbox')
    evaluation.params.catIds = list(category_ids)
    return _run(evaluation, category_ids)


def _run(evaluation: Any, category_ids: Sequence[int]) -> BoxScores:
    """Run an evaluation of either library, without its prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        summary = COCOeval(iouType='bbox')  # for both: hotcoco adds up as NumPy 2 does, whatever is installed
        summary.eval = evaluation.eval
        summary.summarize()
    precision = evaluation.eval['precision'][..., ALL_AREAS, MOST_DETECTIONS]  # (T, R, K), ordered by id
    columns = np.searchsorted(np.unique(category_ids), category_ids)
    return BoxScores(summary.stats, precision[..., columns])


def _places(ids: Sequence[Any], place_of: dict[Any, int]) -> np.ndarray:
    """Look up the place of each id; 0 for one that has none."""
    return np.fromiter((place_of.get(one, 0) for one in ids), np.int64, len(ids))


def as_records(detections: CocoDetections) -> list[dict[str, Any]]:
    """Convert to COCO result records, as a result file holds them."""
    columns = (column.tolist() for column in detections)
    return [
        {'image_id': image, 'bbox': bbox, 'score': score, 'category_id': category}
        for image, category, bbox, score in zip(*columns, strict=True)
    ]


def from_records(records: Sequence[dict[str, Any]]) -> CocoDetections:
    """Convert the records of a result file."""
    return CocoDetections(
        np.array([record['image_id'] for record in records]),
        np.array([record['category_id'] for record in records]),
        np.array([record['bbox'] for record in records], np.float64).reshape(-1, 4),
        np.array([record['score'] for record in records], np.float64),
    )


def to_pycocotools(file: CocoFile) -> COCO:
    """Convert annotations to what the box metric needs of pycocotools' `COCO`, without its prints.

    Objects are numbered anew from 1, because pycocotools takes a match with object 0 for no match. `area`
    defaults to that of the box, also where it is negative: pycocotools would pass over such an object.
    Objects whose box is not finite (null, in strict JSON) are dropped: training leaves them out too, and
    nothing can match them. Without annotations `dataset` has no such key.
    """
    coco = COCO()
    coco.dataset = {
        'images': [
            {'id': img_id, 'file_name': name.decode()}
            for img_id, name in zip(file.img_ids.tolist(), file.file_names.tolist(), strict=True)
        ],
        'categories': [{'id': category_id, 'name': name} for name, category_id in file.category_ids.items()],
    }
    if file.has_annotations:
        rows = np.flatnonzero(np.isfinite(file.bboxes).all(1))
        if odd := np.flatnonzero(file.areas <= 0).tolist():
            print_log(
                f'{file.file}: {len(odd)} annotations have an area of 0 or less, the first is '
                f'{file.ann_ids[odd[0]]}: 0 counts as small, a negative one is replaced by that of the box',
                'current',
                logging.WARNING,
            )
        with np.errstate(over='ignore'):  # of boxes that are larger than any image
            given = np.isfinite(file.areas) & (file.areas >= 0)
            areas = np.where(given, file.areas, file.bboxes[:, 2] * file.bboxes[:, 3])
        columns = {
            'id': np.arange(1, len(rows) + 1),
            'image_id': file.img_ids[file.image_rows[rows]],
            'category_id': np.array([*file.category_ids.values()])[file.category_rows[rows]],
            'bbox': file.bboxes[rows],
            'area': areas[rows],
            'iscrowd': file.crowd[rows].astype(int),
        }
        values = zip(*(column.tolist() for column in columns.values()), strict=True)
        coco.dataset['annotations'] = [dict(zip(columns, row, strict=True)) for row in values]
    _index(coco)
    return coco


def _index(coco: COCO) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
