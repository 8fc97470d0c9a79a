"""Measure the accuracy of a classifier of crops.

G objects · K classes
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from mmdet.distributed.gather import gather_rows
from mmdet.registry import METRICS

NOT_CLASSIFIED = -1  # in place of a label


def top_hits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Check whether the true class is the likeliest one, and among the five likeliest.

    logits (G, K) · labels (G,) -> two (G,) bool
    """
    best = logits.topk(min(5, logits.shape[1]), 1).indices  # (G, 5)
    hit = best == labels[:, None]
    return hit[:, 0], hit.any(1)


@METRICS.register_module()
class CropAccuracy(BaseMetric):
    """Top-1 and top-5 accuracy over all objects, and top-1 averaged over the classes.

    Reads `gt_instances.cls_logits` (G, K) and `.labels` (G,) of each sample, and `left_out`, the number of
    its objects that were not to be classified; they are counted apart.
    """

    default_prefix = 'crops'

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Store, per object, its label and whether it was among the best one and the best five.

        data_samples: as MMEngine's evaluator hands them on, `DetDataSample.to_dict()`.
        """
        for sample in data_samples:
            logits, labels = (sample['gt_instances'][name] for name in ('cls_logits', 'labels'))
            self.results.append(torch.stack([labels, *top_hits(logits, labels)], 1).cpu())
            self.results.append(torch.full((sample['left_out'], 3), NOT_CLASSIFIED))

    def evaluate(self, size: int) -> dict[str, float]:
        """Gather the predictions of all processes, as tensors, and count."""
        rows = torch.cat(self.results) if self.results else torch.zeros(0, 3, dtype=torch.int64)
        self.results.clear()
        metrics = self.compute_metrics(gather_rows(rows))
        return {f'{self.prefix}/{name}': value for name, value in metrics.items()}

    def compute_metrics(self, results: list[Tensor]) -> dict[str, float]:
        """Average; no number without an object.

        results: (label, in top 1, in top 5) per object, (G, 3) int64 of each process.
        """
        rows = torch.cat(results)
        classified = rows[:, 0] != NOT_CLASSIFIED
        labels, top1, top5 = rows[classified].unbind(1)
        if len(labels) == 0:
            print_log('nothing to score: no object could be classified', 'current', logging.WARNING)
            return {}
        per_class = [top1[labels == label].double().mean() for label in labels.unique()]
        return {
            'top1': top1.double().mean().item(),
            'top5': top5.double().mean().item(),
            'class_mean': torch.stack(per_class).mean().item(),
            'objects': float(len(labels)),
            'left_out': float(len(rows) - len(labels)),
        }
