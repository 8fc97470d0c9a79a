"""Draw the crops that the teacher of a distilled student gets, with the teacher's predictions.

With a student's checkpoint the crop of each object's predicted box is shown beside it.

python tools/analysis/browse_teacher.py configs_dev/ssd/ssd300_coco_cls_loc.py --data-root data/coco2017
"""

from collections.abc import Sequence
from pathlib import Path

from mmdet.cli import add_config_arguments, default_work_dir, make_parser, parse, positive


def main(argv: Sequence[str] | None = None) -> None:
    """Write the sheet."""
    parser = make_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument('--teacher', help="teacher file; default: the config's")
    parser.add_argument('--split', choices=['train', 'val'], default='val')
    parser.add_argument('--checkpoint', type=Path, help="a student's weights: show its predicted boxes, too")
    parser.add_argument('--out', type=Path, help='default: work_dirs/<config name>/teacher_sees_<split>.png')
    parser.add_argument('--number', type=positive, default=48, help='how many objects, spread over the set')
    args = parse(parser, argv)
    from mmdet.analysis.teacher import load_distilled_config, teacher_sheet
    from mmdet.visualization.canvas import write_picture

    cfg = load_distilled_config(args.config, args.teacher, args.cfg_options, args.data_root, args.split)
    out = args.out or default_work_dir(args.config) / f'teacher_sees_{args.split}.png'
    write_picture(out, teacher_sheet(cfg, args.split, args.number, args.checkpoint))
    print(f'{out}: green is answered rightly, red wrongly')
