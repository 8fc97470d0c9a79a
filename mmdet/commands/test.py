"""Test a checkpoint on a data set: compute COCO metrics, write or draw detections.

python tools/test.py configs/ssd/ssd300.py work_dirs/ssd300/latest.pth --eval bbox
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.cli import add_common_arguments, default_work_dir, make_parser, parse
from mmdet.distributed.launchers import choose_launcher


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        ValueError: Arguments that contradict each other, or a file type that is not known.
    """
    parser = make_parser(__doc__)
    add_common_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--eval', nargs='+', choices=['bbox'], help='compute COCO box AP; the default without --out'
    )
    parser.add_argument('--out', help='write detections: F.json for COCO results, F.pkl for pickled arrays')
    parser.add_argument(
        '--format-only', action='store_true', help='write detections without computing metrics'
    )
    parser.add_argument('--classwise', action='store_true', help='also give the AP of every class')
    parser.add_argument('--show-dir', help='folder for pictures of ground truth and detections')
    parser.add_argument('--show-score-thr', type=float, default=0.3, help='lowest score that is drawn')
    parser.add_argument(
        '--report', type=Path, metavar='DIR', help='folder for an HTML report with curves and errors'
    )
    args = parse(parser, argv)
    if args.out is not None and not args.out.endswith(('.json', '.pkl')):
        raise ValueError(f'--out {args.out}: the name must end in .json (COCO results) or .pkl (arrays)')
    if args.format_only and (args.eval or args.classwise or args.report):
        raise ValueError('--format-only scores nothing: leave it out, or --eval, --classwise and --report')
    if args.report and args.out and not args.out.endswith('.json'):
        raise ValueError(f'--report reads the detections: let --out {args.out} end in .json, or leave it out')
    return args


def configure(cfg: Any, args: argparse.Namespace) -> Any:
    """Reduce a resolved config to what testing needs and write the command line into it.

    The distiller goes: it belongs to the loss, and its teacher's file need not be there.
    """
    from mmengine.config import Config

    from mmdet.config.resolve import annotation_metrics

    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(default_work_dir(args.config))
    cfg.launcher = choose_launcher(args.launcher)
    cfg.load_from, cfg.resume = args.checkpoint, False
    cfg.model.pop('distiller', None)
    training = ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr')
    for key in (*training, 'val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg[key] = None
    metrics = annotation_metrics(cfg, 'test')
    asked = args.eval or args.out or args.format_only or args.classwise or args.show_dir or args.report
    if asked and not metrics:
        raise ValueError(f'{args.config} has no CocoMetric in test_evaluator: there are no boxes to test')
    for metric in metrics:
        metric.update(metric_arguments(metric, args, cfg.work_dir))
    # a config without a file is recorded under the time of the test, not over the record of the training
    return Config(cfg.to_dict())


def metric_arguments(metric: Mapping[str, Any], args: argparse.Namespace, work_dir: str) -> dict[str, Any]:
    """Translate the command line into arguments of the metric.

    Detections that are not scored are written in any case, by default to `detections.json` in the work dir.
    """
    from mmdet.datasets.coco_format import read_coco

    written = args.out or args.format_only or metric.get('format_only')
    scored = args.eval or args.classwise or args.report or not written
    out = args.out or (args.report and str(args.report / 'detections.json')) or metric.get('outfile_prefix')
    if out is None and (not scored or not read_coco(metric['ann_file'], boxes_needed=False).has_annotations):
        out = str(Path(work_dir, 'detections.json'))
    classwise = args.classwise or metric.get('classwise', False)
    return {'classwise': classwise, 'format_only': not scored, 'outfile_prefix': out}


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Test; returns the numbers by name."""
    args = parse_args(argv)
    from mmengine.dist import is_main_process

    from mmdet.config.resolve import load_config
    from mmdet.engine import DetRunner
    from mmdet.engine.hooks.draw import DrawHook

    cfg = configure(load_config(args.config, args.cfg_options, args.data_root, for_training=False), args)
    runner = DetRunner.from_cfg(cfg, args.trust_checkpoint)
    if args.show_dir is not None:
        runner.register_hook(DrawHook(args.show_dir, args.show_score_thr))
    numbers: dict[str, float] = runner.test()
    if args.report is not None and is_main_process():
        from mmdet.analysis.detector_report import write_detector_report

        written = numbers and write_detector_report(runner, args.config, args.report)
        print(written or 'no report: nothing was scored')
    return numbers
