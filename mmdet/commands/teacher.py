"""Draw a sheet of objects exactly as the teacher of a distilled student gets them, with its answers.

With a student's checkpoint each object's predicted box stands beside it, cut and judged in the same way.

python tools/analysis/browse_teacher.py configs_dev/ssd/ssd300_coco_cls_loc.py --data-root data/coco2017
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2

from mmdet.analysis.teacher import load_distilled_config, teacher_sheet
from mmdet.cli import add_config_arguments, parse


def main(argv: Sequence[str] | None = None) -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_arguments(parser)
    parser.add_argument('--teacher', help='file of another teacher than the config names')
    parser.add_argument('--split', choices=['train', 'val'], default='val')
    parser.add_argument('--checkpoint', type=Path, help="a student's weights: show its predicted boxes, too")
    parser.add_argument('--out', type=Path, help='default: work_dirs/<config name>/teacher_sees_<split>.png')
    parser.add_argument('--number', type=int, default=48, help='how many objects, spread over the set')
    args = parse(parser, argv)
    if args.number < 1:
        raise ValueError(f'--number must be at least 1, but is {args.number}')
    cfg = load_distilled_config(args.config, args.teacher, args.cfg_options, args.data_root, args.split)
    sheet = teacher_sheet(cfg, args.split, args.number, args.checkpoint)
    out = args.out or Path('work_dirs', Path(args.config).stem, f'teacher_sees_{args.split}.png')
    out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(out), sheet):
        raise OSError(f'cannot write {out}; is the disk full, or the folder read-only?')
    print(f'{out}: green is answered rightly, red wrongly')
