"""Report the accuracy and calibration of a teacher on the crops that the distiller cuts.

Writes report.html, the same as report.md, report.json and reliability.svg.

python tools/analysis/teacher_report.py configs_dev/ssd/ssd300_coco_cls_loc.py --data-root data/coco2017
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet.cli import add_config_arguments, default_work_dir, make_parser, parse


def main(argv: Sequence[str] | None = None) -> None:
    """Write the report and say where it is."""
    parser = make_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument('--teacher', help="teacher file; default: the config's")
    parser.add_argument('--split', choices=['train', 'val'], default='val')
    parser.add_argument('--out-dir', type=Path, help='default: work_dirs/<config>/teacher_report_<split>')
    args = parse(parser, argv)
    typed = sys.argv[1:] if argv is None else argv
    from mmdet.analysis.report import write_report
    from mmdet.analysis.teacher import load_distilled_config

    cfg = load_distilled_config(args.config, args.teacher, args.cfg_options, args.data_root, args.split)
    out_dir = args.out_dir or default_work_dir(args.config) / f'teacher_report_{args.split}'
    command = shlex.join(['python', 'tools/analysis/teacher_report.py', *typed])
    text = write_report(cfg, args.split, out_dir, command)
    print(text.partition('## Verdict\n\n')[2].partition('\n\n![')[0])
    print(f'\nwhole report: {out_dir / "report.html"}')
