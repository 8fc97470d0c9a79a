"""Describe the boxes of a data set as the network sees them, and how well the anchors of a config fit them.

B boxes · A anchors · L levels · boxes xyxy in pixels of the network input
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmdet.datasets.transforms.geometry import Resize
from mmdet.datasets.transforms.window import Window
from mmdet.registry import MODELS
from mmdet.structures import Anchors, GroundTruth

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SAMPLE = 2000  # boxes that the anchors are tried on
TRIED = 300  # boxes that each set of sizes is tried on
SMALLEST, LARGEST = (0.02, 0.1, 0.2, 0.35), (0.7, 0.85, 0.95, 1.0)  # quantiles between which sizes are tried
FACTORS = (0.25, 0.35, 0.5, 0.7, 1.4, 2.0)  # by which scales are tried
GAIN = 0.01  # share of the boxes; what wins less is not told


class Boxes(NamedTuple):
    """Boxes as the network sees them in an evaluation, without augmentation."""

    xyxy: Tensor  # (B, 4) float32
    img_shape: Tensor  # (B, 2) int64, (h, w) of the image of each


def input_boxes(dataset: Any) -> Boxes:
    """Scale the boxes of a CocoDataset as its pipeline resizes their images."""
    _, rows = dataset.objects()
    sizes, of_image = np.unique(dataset.sizes, axis=0, return_inverse=True)
    resizes = [transform for transform in dataset.pipeline if isinstance(transform, Resize)]
    drawn = sizes.copy()
    for number, (height, width) in enumerate(sizes.tolist() if resizes else ()):
        empty: Any = {'window': Window.whole(height, width), 'bboxes': np.zeros((0, 4), np.float32)}
        window = resizes[-1](empty)['window']
        drawn[number] = window.height, window.width
    of_box = of_image.reshape(-1)[rows]  # (B,) rows of `sizes`
    factors = (drawn / sizes)[of_box]  # (B, 2) h, w
    xyxy = dataset.bboxes * factors[:, [1, 0, 1, 0]]
    return Boxes(torch.from_numpy(xyxy).float(), torch.from_numpy(drawn[of_box]))


def size_line(boxes: Boxes) -> str:
    """Say how large boxes are: quantiles of sqrt(width x height) in pixels of the network input."""
    found = np.quantile(_sides(boxes), QUANTILES)
    sizes = ', '.join(f'{size:.0f} ({100 * q:.0f} %)' for q, size in zip(QUANTILES, found, strict=True))
    height, width = boxes.img_shape.amax(0).tolist()
    return f'box sizes in pixels of the network input, up to {width} x {height}: {sizes}'


def _sides(boxes: Boxes) -> NDArray[np.float64]:
    width, height = (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]).double().numpy().T
    return np.asarray(np.sqrt(width * height))


class AnchorFit:
    """The anchors of a config laid over the boxes of a data set.

    Args:
        cfg: Resolved, of a detector.
        boxes: From `input_boxes`; `SAMPLE` of them are looked at.

    Attributes:
        share: Of the boxes that an anchor reaches at its threshold.
        anchors: All of them, (A, 4).
    """

    def __init__(self, cfg: Any, boxes: Boxes) -> None:
        model_cfg = {**cfg.model, 'distiller': None}
        parts = {name: part for name, part in model_cfg.items() if isinstance(part, dict)}
        self.name = next(name for name, part in parts.items() if part.get('anchor_generator'))
        self.cfg = model_cfg[self.name].anchor_generator
        chosen = np.random.default_rng(0).permutation(len(boxes.xyxy))[:SAMPLE]
        self.boxes = Boxes(boxes.xyxy[chosen], boxes.img_shape[chosen])
        multiple = cfg.train_dataloader.get('collate_fn', {}).get('pad_size_divisor', 1)
        canvas = -(-boxes.img_shape.amax(0) // multiple) * multiple
        with torch.device('meta'):  # shapes alone
            model: Any = MODELS.build(model_cfg).eval()
            feats = model.extract_feat(torch.zeros(1, 3, *canvas.tolist()))
        self.feature_sizes = [(feat.shape[2], feat.shape[3]) for feat in feats]
        self.canvas = canvas.flip(0).tolist()  # w, h
        head = getattr(model, self.name)
        self.assigner = getattr(head.assigner, 'assigner', head.assigner)  # without a sampler
        self.assigner.match_low_quality = False  # of MaxIoUAssigner: only what the threshold allows
        laid_out = self._lay_out({})
        self.anchors, self.share = laid_out.boxes, self._share(laid_out, SAMPLE)

    def _lay_out(self, keys: dict[str, Any]) -> Anchors:
        generator: Any = MODELS.build({**self.cfg, **keys})
        anchors: Anchors = generator(self.feature_sizes, torch.device('cpu'))
        return anchors

    def _share(self, anchors: Anchors, number: int) -> float:
        """Compute the share of the first boxes that an anchor learns, each box as if it were alone."""
        reached = []
        parts = (part[:number].split(64) for part in self.boxes)
        for bboxes, shapes in zip(*parts, strict=True):
            count = torch.zeros(len(bboxes), 1, dtype=torch.int64)
            gt = GroundTruth(count[:, 0], shapes, shapes, bboxes[:, None], count, count == 0, count)
            reached.append((self.assigner(anchors, gt) >= 0).any(1))
        return float(torch.cat(reached).float().mean())

    def better_sizes(self) -> tuple[float, dict[str, Any]] | None:
        """Find sizes of anchors that reach more boxes.

        Returns:
            The share of the boxes that they reach, and the keys of the config; None where none reach more.
        """
        tried = self._candidates()
        if not tried:
            return None
        best = max(tried, key=lambda keys: self._share(self._lay_out(keys), TRIED))
        share = self._share(self._lay_out(best), SAMPLE)
        keys = {f'model.{self.name}.anchor_generator.{key}': value for key, value in best.items()}
        return (share, keys) if share > self.share + GAIN else None

    def _candidates(self) -> list[dict[str, Any]]:
        """List sets of sizes: in equal ratios between quantiles of the boxes, or scales times a factor."""
        if self.cfg.type == 'SSDAnchorGenerator':
            fixed = {'basesize_ratio_range': None, 'input_size': self.canvas}
            sides, levels = _sides(self.boxes), len(self.cfg.ratios)
            found = []
            for low in np.quantile(sides, SMALLEST):
                for high in np.quantile(sides, LARGEST):
                    sizes = np.geomspace(low, max(high, 1.5 * low), levels + 1).round().astype(int).tolist()
                    found.append({**fixed, 'min_sizes': sizes[:-1], 'max_sizes': sizes[1:]})
            return found
        if not hasattr(self.assigner, 'pos_iou_thr'):  # FCOS: its cells have no size
            return []
        return [{'scales': [round(factor * scale, 2) for scale in self.cfg.scales]} for factor in FACTORS]
