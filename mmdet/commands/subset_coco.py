"""Write an annotation file with some images of another one, and all its categories.

python tools/misc/subset_coco.py annotations/instances_train2017.json annotations/eight.json --number 8
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.cli import make_parser


def subset(coco: dict[str, Any], img_ids: set[int]) -> dict[str, Any]:
    """The content of an annotation file, reduced to the images with these ids."""
    return {
        **coco,
        'images': [image for image in coco['images'] if image['id'] in img_ids],
        'annotations': [one for one in coco.get('annotations', []) if one['image_id'] in img_ids],
    }


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

    from mmdet.datasets.coco_format import column, load

    if not args.ann_file.is_file():
        raise FileNotFoundError(f'{args.ann_file}: there is no such annotation file')
    coco = load(args.ann_file)
    known = column(coco, 'images', 'id', args.ann_file)
    if 'annotations' in coco:
        column(coco, 'annotations', 'image_id', args.ann_file)
    if args.ids is None:
        if not 0 < args.number <= len(known):
            raise ValueError(
                f'{args.ann_file} has {len(known)} images; --number {args.number} cannot be drawn'
            )
        ids = set(np.random.default_rng(args.seed).permutation(known)[: args.number].tolist())
    else:
        ids = set(args.ids)
        if unknown := sorted(ids - set(known)):
            raise ValueError(f'{args.ann_file} has no images with the ids {unknown}')
    if args.out.resolve() == args.ann_file.resolve():
        raise ValueError(f'{args.out} is the file that is read; name another one')
    content = subset(coco, ids)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(content), encoding='utf-8')
    print(f'{len(content["images"])} images, {len(content["annotations"])} annotations: {args.out}')
