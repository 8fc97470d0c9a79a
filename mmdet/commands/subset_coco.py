"""Write an annotation file with some images of another one, and all its categories.

python tools/misc/subset_coco.py annotations/instances_train2017.json annotations/eight.json --number 8
"""

import json
from collections.abc import Sequence
from pathlib import Path

from mmdet.cli import make_parser
from mmdet.files import part_of_coco, write_coco


def main(argv: Sequence[str] | None = None) -> None:
    """Choose and write."""
    parser = make_parser(__doc__)
    parser.add_argument('ann_file', type=Path, help='COCO annotations')
    parser.add_argument('out', type=Path, help='file to write')
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument('--number', type=int, help='so many images, drawn at random')
    chosen.add_argument('--ids', type=int, nargs='+', help='the images with these ids')
    parser.add_argument('--seed', type=int, default=0, help='of --number')
    args = parser.parse_args(argv)
    import numpy as np

    from mmdet.datasets.coco_format import read_coco

    known = read_coco(args.ann_file, boxes_needed=False).img_ids.tolist()
    ids = set(args.ids or ())
    if args.ids is None:
        if not 0 < args.number <= len(known):
            raise ValueError(
                f'{args.ann_file} has {len(known)} images; --number {args.number} cannot be drawn'
            )
        ids = set(np.random.default_rng(args.seed).permutation(known)[: args.number].tolist())
    if unknown := sorted(ids - set(known)):
        raise ValueError(f'{args.ann_file} has no images with the ids {unknown}')
    if args.out.resolve() == args.ann_file.resolve():
        raise ValueError(f'{args.out} is the file that is read; name another one')
    write_coco(args.out, part_of_coco(json.loads(args.ann_file.read_bytes()), ids))
