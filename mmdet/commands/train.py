"""Train the model of a config.

python tools/train.py configs/ssd/ssd300.py --data-root data/coco2017
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.cli import (
    add_common_arguments,
    add_short_options,
    default_work_dir,
    make_parser,
    parse,
    short_options,
)
from mmdet.distributed.launchers import choose_launcher


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='latest',
        metavar='FILE',
        help='continue from FILE, or from the newest complete checkpoint in the work dir',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision, bfloat16 or float16')
    parser.add_argument(
        '--amp-dtype',
        choices=['bfloat16', 'float16'],
        help='with --amp; default: bfloat16 on the CPU and on cards of compute capability 8.0 and newer',
    )
    parser.add_argument(
        '--compile',
        nargs='?',
        const='default',
        metavar='MODE',
        help='torch.compile student and teacher; MODE as torch names it, reduce-overhead for CUDA graphs',
    )
    parser.add_argument('--channels-last', action='store_true', help='NHWC memory layout')
    parser.add_argument('--seed', type=int, help='random seed; default: that of the config')
    parser.add_argument('--deterministic', action='store_true', help='deterministic operations; slower')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size over all processes',
    )
    add_short_options(parser)
    parser.add_argument('--no-validate', action='store_true', help='no evaluation')
    return parse(parser, argv)


def configure(cfg: Any, args: argparse.Namespace) -> Any:
    """Write what the command line says into the config.

    Raises:
        ValueError: The config has no training part, or lacks what an argument needs.
    """
    if cfg.get('train_cfg') is None:
        raise ValueError(f'{args.config} has no train_cfg: there is nothing to train')
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(default_work_dir(args.config))
    cfg.launcher = choose_launcher(args.launcher)
    if args.resume != 'latest' and int(os.environ.get('TORCHELASTIC_MAX_RESTARTS', '0')):
        args.resume = _resume_of_restart(cfg.work_dir, args.resume)
    if args.resume == 'latest':
        cfg.resume = 'latest'  # where there is nothing to resume, `load_from` of the config counts
    elif args.resume is not None:
        cfg.resume, cfg.load_from = True, args.resume
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if args.amp and kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(f'--amp cannot change optim_wrapper.type={kind}')
    if args.amp_dtype and not args.amp:
        raise ValueError('--amp-dtype goes with --amp')
    if args.auto_scale_lr and 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise ValueError(f'--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in {args.config}')
    cfg.randomness = cfg.get('randomness') or {}
    changes = {
        'optim_wrapper.type': 'AmpOptimWrapper' if args.amp else None,
        'optim_wrapper.dtype': args.amp_dtype,
        'compile': args.compile and {'mode': args.compile},
        'channels_last': args.channels_last or None,
        'randomness.seed': args.seed,
        'randomness.deterministic': args.deterministic or None,
        'auto_scale_lr.enable': args.auto_scale_lr or None,
    }
    cfg.merge_from_dict({key: value for key, value in changes.items() if value is not None})
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        if 'checkpoint' in cfg.get('default_hooks', {}):
            cfg.default_hooks.checkpoint.save_best = None
    return cfg


def _resume_of_restart(work_dir: str, resume: str | None) -> str | None:
    """Choose where a run goes on that the launcher starts again: not from another run's checkpoint.

    Raises:
        ValueError: At the first start, the work dir holds a checkpoint already.
    """
    from mmdet.engine.state import choose_checkpoint

    held, _ = choose_checkpoint(work_dir)
    if held is None:
        return resume  # a restart before the first checkpoint begins as the first start did
    if os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':
        raise ValueError(
            f'with MAX_RESTARTS a restart would go on from {held}, which another run has written. Give '
            '--resume to go on from it now, or another --work-dir'
        )
    return 'latest'


def _tell_overwritten(work_dir: str) -> None:
    """Say, once for all processes, which files of an earlier run a new training may overwrite.

    Not the file of a teacher, `model_best.pth.tar`: `SaveTeacherHook` keeps it.
    """
    held = sorted(file.name for file in Path(work_dir).glob('*.pth'))
    if held and os.environ.get('RANK', '0') == '0':
        names = ', '.join([*held[:4], *['...'] * (len(held) > 4)])
        print(
            f'note: {work_dir} holds {names} of an earlier run: files of the same names are overwritten. '
            '--resume goes on from it, another --work-dir keeps it',
            file=sys.stderr,
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Train."""
    args = parse_args(argv)
    from mmdet.config.resolve import load_config
    from mmdet.engine import DetRunner

    options = {**args.cfg_options, **short_options(args)}
    cfg = configure(load_config(args.config, options, args.data_root), args)
    if not cfg.get('resume'):
        _tell_overwritten(cfg.work_dir)
    DetRunner.from_cfg(cfg, args.trust_checkpoint).train()
