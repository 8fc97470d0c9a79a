"""Store the outputs of a teacher for every object once, for training with `StoredTeacher`.

python tools/store_teacher.py configs_dev/ssd/ssd300_coco_cls_loc.py --data-root data/coco2017

Keeps the mean logits of each object over several views of the student's augmentation. A stopped run continues
when it is started again. Several processes share the images:
torchrun --nproc_per_node=4 tools/store_teacher.py CONFIG
"""

from collections.abc import Sequence
from pathlib import Path

from mmdet.cli import add_config_arguments, add_launcher_argument, make_parser, parse, positive
from mmdet.distributed.launchers import choose_launcher


def main(argv: Sequence[str] | None = None) -> None:
    """Ask, and store."""
    parser = make_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument('--teacher', help="teacher file; default: the config's")
    parser.add_argument('--views', type=positive, default=8, help='augmented views per object; default: 8')
    parser.add_argument('--out', type=Path, help="default: answers.pth beside the teacher's file")
    add_launcher_argument(parser)
    args = parse(parser, argv)
    launcher = choose_launcher(args.launcher)
    from mmengine.dist import barrier, get_dist_info

    from mmdet.analysis.answers import ask_teacher, merge_answers, part_file
    from mmdet.analysis.teacher import load_distilled_config
    from mmdet.checkpoint.io import check_writable
    from mmdet.distributed.launch import start_process_group

    cfg = load_distilled_config(args.config, args.teacher, args.cfg_options, args.data_root, 'train')
    out = args.out or Path(cfg.model.distiller.teacher.checkpoint).with_name('answers.pth')
    if launcher != 'none':
        start_process_group(launcher)
    rank, world_size = get_dist_info()
    check_writable(out.parent)
    ask_teacher(cfg, args.views, out, rank, world_size)
    barrier()
    if rank == 0:
        counts = merge_answers([part_file(out, i, world_size) for i in range(world_size)], out)
        seen = counts[counts > 0]
        print(f'{out}: the answers about {len(seen)} objects, each from {seen.float().mean():.1f} views')
        if missing := len(counts) - len(seen):
            print(
                f'left out {missing} objects of images that cannot be read; mend them before you start again'
            )
