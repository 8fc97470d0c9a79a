"""Evaluate detections with COCO's box metric.

D detections of an image · M detections of all images · boxes xyxy in pixels of the original image, in result
files xywh
"""

import json
import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine import dist
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from terminaltables import AsciiTable
from torch import Tensor

from mmdet.datasets.coco_format import read_coco
from mmdet.datasets.training_boxes import select_boxes
from mmdet.distributed.gather import gather_rows
from mmdet.evaluation.coco_eval import (
    CocoDetections,
    as_records,
    evaluate_boxes,
    mean_precision,
    to_pycocotools,
)
from mmdet.registry import METRICS
from mmdet.structures import NO_IMAGE

AP_NAMES = ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75', 'bbox_mAP_s', 'bbox_mAP_m', 'bbox_mAP_l')


@METRICS.register_module()
class CocoMetric(BaseMetric):
    """COCO's box metric over all images of an annotation file.

    An image for which no detections arrive, because it holds nothing or could not be read, counts as an image
    without detections. Without any box that `select_boxes` leaves, or without any image that could be read,
    there is nothing to score, and no number. The numbers are those of pycocotools on the written results, to
    the last digit.

    Args:
        ann_file: COCO annotations.
        classes: Name of each label; default the categories of `ann_file`, ordered by id.
        metric: 'bbox', the only one there is.
        classwise: Also give the AP of every class, `coco/<class>_precision`.
        format_only: Write results and score nothing; needs `outfile_prefix`.
        outfile_prefix: Where to write detections: `F.json` for COCO results (xywh), `F.pkl` for a pickled
            list of dicts of arrays (xyxy), any other text for `<text>.bbox.json`. None: nowhere.
        prefix: What stands before the names of the numbers, default 'coco'.

    Raises:
        FileNotFoundError: No such annotation file.
        ValueError: Annotations that cannot be used, or a wrong combination of arguments.
    """

    default_prefix = 'coco'

    def __init__(
        self,
        ann_file: str,
        classes: Sequence[str] | None = None,
        metric: str = 'bbox',
        classwise: bool = False,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(prefix=prefix)
        if metric != 'bbox':
            raise ValueError(f"CocoMetric knows the metric 'bbox' only, got {metric!r}")
        if format_only and outfile_prefix is None:
            raise ValueError(
                'format_only writes results: say where with outfile_prefix (tools/test.py: --out)'
            )
        content = read_coco(ann_file, boxes_needed=False)
        self.coco = to_pycocotools(content)
        self.ann_file = ann_file
        self.classwise = classwise
        self.format_only = format_only
        self.outfile = None
        if outfile_prefix is not None:
            whole = outfile_prefix.endswith(('.json', '.pkl'))
            self.outfile = Path(outfile_prefix if whole else f'{outfile_prefix}.bbox.json')
        ids = content.category_ids
        self.classes = tuple(ids if classes is None else classes)
        if missing := [name for name in self.classes if name not in ids]:
            raise ValueError(
                f'{ann_file} has no category named {", ".join(missing)}.\n'
                f'  classes of the model: {", ".join(self.classes)}\n'
                f'  categories of the file: {", ".join(ids)}'
            )
        self.category_ids = [ids[name] for name in self.classes]  # per label
        boxes = select_boxes(content, self.classes)
        # why there is nothing to score; '' where there is
        self.unscored = '' if len(boxes.labels) else boxes.advice
        if format_only:
            self.unscored = 'only the result file was asked for'

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        """Store the detections of one batch; `img_id` -1 stands for no image.

        data_samples: `DetDataSample`, or dicts of the same content as MMEngine's evaluator makes them.
        """
        for data_sample in data_samples:
            sample = data_sample if isinstance(data_sample, dict) else data_sample.to_dict()
            if sample['img_id'] == NO_IMAGE:
                continue
            found = sample['pred_instances']
            columns = (found['bboxes'], found['scores'][:, None], found['labels'][:, None])
            detections = torch.cat([column.detach().float().cpu() for column in columns], 1)  # (D, 6)
            self.results.append((int(sample['img_id']), detections))

    def evaluate(self, size: int) -> dict[str, float]:
        """Compute the numbers over all processes, the same on each of them; forgets the detections.

        size is not used: an image that a sampler gave out twice is known by its id.
        """
        by_image = gather_detections(self.results)
        self.results.clear()
        per_class = [f'{name}_precision' for name in self.classes] if self.classwise else []
        names = [] if self._why_unscored(by_image) else [*AP_NAMES, *per_class]
        values = torch.zeros(len(names), dtype=torch.float64)
        if dist.is_main_process():
            numbers = self.compute_metrics([by_image])
            values += torch.tensor([numbers[name] for name in names], dtype=torch.float64)
        if names:
            dist.broadcast(values)
        return {f'{self.prefix}/{name}': value for name, value in zip(names, values.tolist(), strict=True)}

    def compute_metrics(self, results: list[dict[int, Tensor]]) -> dict[str, float]:
        """Write the result file when one is asked for, and score; on the main process.

        results: one dict, image id -> detections (D, 6) as x1, y1, x2, y2, score, label.
        """
        logger = MMLogger.get_current_instance()
        (by_image,) = results
        if unknown := sorted(by_image.keys() - self.coco.imgs.keys()):
            raise ValueError(
                f'{self.ann_file} has no image with id {unknown[0]} ({len(unknown)} such): the ann_file '
                'of metric and data set differ'
            )
        found = self.detections(by_image)
        if self.outfile is not None:
            self.outfile.parent.mkdir(parents=True, exist_ok=True)
            if self.outfile.suffix == '.json':
                self.outfile.write_text(json.dumps(as_records(found)))
            else:
                self.outfile.write_bytes(pickle.dumps(_as_arrays(by_image)))
            logger.info(f'{len(found.scores)} detections of {len(by_image)} images written to {self.outfile}')
        if reason := self._why_unscored(by_image):
            logger.log(logging.INFO if self.format_only else logging.WARNING, f'nothing to score: {reason}')
            return {}
        scores = evaluate_boxes(self.coco, found, self.category_ids)
        per_class = [mean_precision(column) for column in np.moveaxis(scores.precision, 2, 0)]
        logger.info('\n' + _summary_table(scores.stats))
        if self.classwise:
            logger.info('\n' + _class_table(self.classes, per_class))
        return dict(zip(AP_NAMES, map(float, scores.stats[:6]), strict=True)) | {
            f'{name}_precision': value for name, value in zip(self.classes, per_class, strict=True)
        }

    def _why_unscored(self, by_image: dict[int, Tensor]) -> str:
        unread = '' if by_image else f'not one of the images of {self.ann_file} could be used'
        return self.unscored or unread

    def detections(self, by_image: dict[int, Tensor]) -> CocoDetections:
        """Convert to COCO: ids of the annotation file, boxes xywh, in the order of the image ids.

        by_image: image id -> (D, 6) x1, y1, x2, y2, score, label.
        """
        ids = sorted(by_image)
        found = [by_image[img_id] for img_id in ids]
        rows = torch.cat([torch.zeros(0, 6), *found]).double().numpy()  # (M, 6)
        bboxes = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], 1)
        category_ids = np.array(self.category_ids, np.int64)[rows[:, 5].astype(np.int64)]
        image_ids = np.repeat(np.array(ids, np.int64), [len(one) for one in found])
        return CocoDetections(image_ids, category_ids, bboxes, rows[:, 4])


def gather_detections(results: Sequence[tuple[int, Tensor]]) -> dict[int, Tensor]:
    """Gather the detections of all processes, each image once.

    Moved as tensors, padded to the longest process: pickled lists of a whole evaluation take minutes.

    results: (image id, detections (D, 6)) of this process · returns image id -> (D, 6)
    """
    counts = [(img_id, len(found)) for img_id, found in results]
    images = torch.tensor(counts, dtype=torch.int64).reshape(-1, 2)
    detections = torch.cat([torch.zeros(0, 6), *(found for _, found in results)])  # (M, 6)
    by_image: dict[int, Tensor] = {}
    for ids_and_counts, rows in zip(gather_rows(images), gather_rows(detections), strict=True):
        ids, lengths = ids_and_counts.unbind(1)
        for img_id, found in zip(ids.tolist(), rows.split(lengths.tolist()), strict=True):
            by_image.setdefault(img_id, found)
    return by_image


def _as_arrays(by_image: dict[int, Tensor]) -> list[dict[str, Any]]:
    """List what a pickled result file holds: per image `img_id`, `bboxes` (D, 4) xyxy, `scores`, `labels`."""
    return [
        {
            'img_id': img_id,
            'bboxes': found[:, :4].numpy(),
            'scores': found[:, 4].numpy(),
            'labels': found[:, 5].long().numpy(),
        }
        for img_id, found in sorted(by_image.items())
    ]


def _summary_table(stats: np.ndarray) -> str:
    """Lay AP and AR out as one table; '-' where the set holds no such object."""
    cells = [_cell(value) for value in stats]
    names = (
        ('AP', 'AP50', 'AP75', 'AP_s', 'AP_m', 'AP_l'),
        ('AR@1', 'AR@10', 'AR@100', 'AR_s', 'AR_m', 'AR_l'),
    )
    table = AsciiTable([names[0], cells[:6], names[1], cells[6:]], 'box AP and AR')
    table.inner_row_border = True
    return str(table.table)


def _class_table(classes: Sequence[str], precisions: Sequence[float]) -> str:
    """Lay out the AP of each class, three classes in a row."""
    cells = [cell for pair in zip(classes, map(_cell, precisions), strict=True) for cell in pair]
    cells += [''] * (-len(cells) % 6)
    rows = [cells[start : start + 6] for start in range(0, len(cells), 6)]
    return str(AsciiTable([['class', 'AP'] * 3, *rows], 'box AP per class').table)


def _cell(value: float) -> str:
    return '-' if value < 0 else f'{value:.4f}'
