"""Detect on a test set with a checkpoint, and score, write or draw what is found.

python tools/test.py configs/ssd/ssd300.py work_dirs/ssd300/latest.pth --eval bbox
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet.cli import add_common_arguments, add_trust_argument, apply_deprecated_args, hint
from mmdet.config.options import DictAction
from mmdet.config.resolve import annotation_metrics, load_config
from mmdet.datasets.transforms import read_image
from mmdet.engine import DetRunner
from mmdet.evaluation.coco_eval import read_annotations
from mmdet.structures import DetDataSample
from mmdet.visualization.detections import draw_detections, draw_side_by_side


class DrawHook(Hook):
    """Writes a picture of each image: the ground truth, where there is some, beside what was found.

    Args:
        show_dir: Folder of the pictures; they keep the names that the annotation file gives the images.
        ann_file: Annotations of the images.
        classes: Name of each label.
        score_thr: Detections with a lower score are not drawn.
    """

    def __init__(self, show_dir: str | Path, ann_file: str, classes: Sequence[str], score_thr: float) -> None:
        self.show_dir = Path(show_dir)
        self.coco = read_annotations(ann_file)
        self.classes = tuple(classes)
        self.score_thr = score_thr
        names = {key: category['name'] for key, category in self.coco.cats.items()}
        self.labels = {key: self.classes.index(name) for key, name in names.items() if name in self.classes}

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[DetDataSample] | None = None,
    ) -> None:
        """Draw the images of one batch."""
        dataset = runner.test_loop.dataloader.dataset
        for sample in outputs or ():
            if sample.img_id != -1:
                image = read_image(dataset.image_file(sample.img_id), sample.ori_shape)
                file = self.show_dir / self.coco.imgs[sample.img_id]['file_name']
                file.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(file.with_suffix('.jpg')), self.draw(image, sample))

    def draw(self, image: np.ndarray, sample: DetDataSample) -> np.ndarray:
        """The picture of one image, BGR uint8 (H, W, 3)."""
        found = sample.pred_instances
        drawn = draw_detections(image, found.bboxes, found.labels, found.scores, self.classes, self.score_thr)
        if 'annotations' not in self.coco.dataset:
            return drawn
        objects = [one for one in self.coco.imgToAnns[sample.img_id] if one['category_id'] in self.labels]
        bboxes = np.array([one['bbox'] for one in objects], np.float32).reshape(-1, 4)
        bboxes[:, 2:] += bboxes[:, :2]
        labels = np.array([self.labels[one['category_id']] for one in objects], np.int64)
        truth = draw_detections(image, bboxes, labels, classes=self.classes)
        return draw_side_by_side(truth, drawn, ('ground truth', f'found, score from {self.score_thr:g}'))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; spellings of MMDetection 2.x arrive under their new names.

    Raises:
        ValueError: A metric, an evaluation option or a file type that is not known.
    """
    parser = argparse.ArgumentParser(description='Test a checkpoint.')
    add_common_arguments(parser)
    add_trust_argument(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--eval', nargs='+', metavar='METRIC', help="what to score: 'bbox', also the default without --out"
    )
    parser.add_argument('--out', help='write detections: F.json for COCO results, F.pkl for pickled arrays')
    parser.add_argument('--format-only', action='store_true', help='write detections, score nothing')
    parser.add_argument('--classwise', action='store_true', help='also give the AP of every class')
    parser.add_argument('--show-dir', help='folder for pictures of detections beside the ground truth')
    parser.add_argument('--show-score-thr', type=float, default=0.3, help='lowest score that is drawn')
    parser.add_argument('--eval-options', nargs='+', action=DictAction, default={}, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    apply_deprecated_args(args)
    take_eval_options(args)
    unknown = [name for name in args.eval or () if name != 'bbox']
    if unknown:
        raise ValueError(f'--eval {unknown[0]}: only bbox can be scored')
    if args.out is not None and not args.out.endswith(('.json', '.pkl')):
        raise ValueError(f'--out {args.out}: the name must end in .json (COCO results) or .pkl (arrays)')
    if args.format_only and (args.eval or args.classwise):
        raise ValueError('--format-only scores nothing: leave it out, or --eval and --classwise')
    return args


def take_eval_options(args: argparse.Namespace) -> None:
    """Move MMDetection 2.x's `--eval-options` to today's arguments, with a hint."""
    for key, value in args.eval_options.items():
        if key == 'classwise':
            hint(f'--eval-options {key}={value}', '--classwise')
            args.classwise = args.classwise or bool(value)
        elif key == 'jsonfile_prefix':
            hint(f'--eval-options {key}={value}', f'--out {value}.bbox.json')
            args.out = args.out or f'{value}.bbox.json'
        else:
            raise ValueError(f'--eval-options {key}: only classwise and jsonfile_prefix are known')


def configure(cfg: Config, args: argparse.Namespace) -> Config:
    """Reduce a resolved config to what testing needs and write the command line into it.

    The distiller goes: it belongs to the loss, and its teacher's file need not be there.
    """
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(args.config).stem))
    cfg.launcher = args.launcher
    cfg.load_from, cfg.resume = args.checkpoint, False
    cfg.model.pop('distiller', None)
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr'):
        cfg[key] = None
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    metrics = annotation_metrics(cfg, 'test')
    asked = args.eval or args.out or args.format_only or args.classwise or args.show_dir
    if asked and not metrics:
        raise ValueError(f'{args.config} has no CocoMetric in test_evaluator: there are no boxes to test')
    for metric in metrics:
        metric.update(metric_arguments(metric, args, cfg.work_dir))
    # a config without a file is recorded under the time of the test, not over the record of the training
    return Config(cfg.to_dict())


def metric_arguments(metric: Mapping[str, Any], args: argparse.Namespace, work_dir: str) -> dict[str, Any]:
    """What the command line says to the metric.

    Detections that are not scored are written in any case, by default to `detections.json` in the work dir.
    """
    scored = args.eval or args.classwise or not (args.out or args.format_only)
    out = args.out or metric.get('outfile_prefix')
    if out is None and (not scored or 'annotations' not in read_annotations(metric['ann_file']).dataset):
        out = str(Path(work_dir, 'detections.json'))
    classwise = args.classwise or metric.get('classwise', False)
    return {'classwise': classwise, 'format_only': not scored, 'outfile_prefix': out}


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Test; returns the numbers by name."""
    args = parse_args(argv)
    cfg = configure(load_config(args.config, args.cfg_options, args.data_root, for_training=False), args)
    runner = DetRunner.from_cfg(cfg, args.trust_checkpoint)
    if args.show_dir is not None:
        metric = annotation_metrics(cfg, 'test')[0]
        runner.register_hook(
            DrawHook(args.show_dir, metric['ann_file'], metric['classes'], args.show_score_thr)
        )
    return runner.test()
