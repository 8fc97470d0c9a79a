"""Split an annotation file into train.json, val.json and, if asked for, test.json.

python tools/misc/split_coco.py annotations/all.json annotations/split --val 0.2

Each split gets its share of the images that hold a class, of every class, and of all images. Images of one
group stay together: frames of one video, photos of one patient, near-duplicates.
"""
# M images · C classes

import argparse
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmdet.cli import make_parser, make_progress, parse
from mmdet.files import part_of_coco, write_coco


def group_images(images: Sequence[dict[str, Any]], key: str | None, img_dir: Path | None) -> list[Any]:
    """Name the group of each image; one that belongs with no other is a group of its own.

    Args:
        images: Entries of a COCO file.
        key: A field of them, or a regular expression for their file_name.
        img_dir: Where the photos are, to group those that look alike.

    Raises:
        ValueError: No image has the field, or a file_name in which the expression finds something.
    """
    if img_dir is not None:
        import numpy as np

        from mmdet.datasets.near_duplicates import group_near_duplicates, photo_hash

        files = [img_dir / image['file_name'] for image in images]
        with ThreadPoolExecutor() as pool, make_progress() as progress:
            hashes = [*progress.track(pool.map(photo_hash, files), len(files), description='photos')]
        return group_near_duplicates(np.array(hashes)).tolist()
    if key is None:
        return [*range(len(images))]
    if any(key in image for image in images):
        found = [image.get(key) for image in images]
    else:
        try:
            matches = [re.search(key, image['file_name']) for image in images]
        except re.error as error:
            raise ValueError(f'--group {key} is not a regular expression: {error}') from error
        found = [match and (match.groups() or match[0]) for match in matches]
    if not any(one is not None for one in found):
        raise ValueError(f'--group {key}: no field of the images, and found in no file_name')
    return [f'image {row}' if one is None else str(one) for row, one in enumerate(found)]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument('ann_file', type=Path, help='COCO annotations')
    parser.add_argument('out', type=Path, help='folder of the files to write')
    parser.add_argument(
        '--val', type=float, default=0.2, metavar='SHARE', help='share of the images (default: 0.2)'
    )
    parser.add_argument(
        '--test', type=float, default=0.0, metavar='SHARE', help='share of the images (default: none)'
    )
    parser.add_argument('--seed', type=int, default=0, help='random seed; default: 0')
    together = parser.add_mutually_exclusive_group()
    together.add_argument(
        '--group',
        metavar='KEY',
        help='keep images together that share this: a field of the images, such as video_id, or what a '
        "regular expression finds in file_name, such as '^[^_]+'",
    )
    together.add_argument(
        '--near-duplicates', type=Path, metavar='IMG_DIR', help='keep near-duplicate images together'
    )
    return parse(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Split what the arguments name."""
    args = parse_args(argv)
    shares = {'train': 1 - args.val - args.test, 'val': args.val, 'test': args.test}
    if not all(0 <= share < 1 for share in shares.values()) or shares['train'] < 1e-9:
        raise ValueError(
            f'--val {args.val} and --test {args.test} leave nothing to train on, or are not shares'
        )
    files = {args.out / f'{name}.json': share for name, share in shares.items() if share}
    if args.ann_file.resolve() in [file.resolve() for file in files]:
        raise ValueError(f'{args.ann_file} is the file that is read; name another folder')
    import numpy as np

    from mmdet.datasets.coco_format import read_coco
    from mmdet.datasets.stratify import stratify

    known = read_coco(args.ann_file)
    content = json.loads(args.ann_file.read_bytes())
    groups = group_images(content['images'], args.group, args.near_duplicates)
    names, rows = np.unique(groups, return_inverse=True)  # (M,) row of each image's group
    amounts = np.zeros((len(names), len(known.category_ids) + 1), np.int64)  # (groups, C + 1)
    image_rows, category_rows = np.unique([known.image_rows, known.category_rows], axis=1)  # each pair once
    np.add.at(amounts, (rows[image_rows], category_rows), 1)
    amounts[:, -1] = np.bincount(rows)
    print(f'{len(rows)} images in {len(names)} groups, at most {amounts[:, -1].max()} in one')
    splits = stratify(amounts, [*files.values()], args.seed)[rows]  # (M,)
    if empty := [str(file) for number, file in enumerate(files) if number not in splits]:
        raise ValueError(f'{empty[0]} would get no image: give it a larger share, or use smaller groups')
    for number, file in enumerate(files):
        write_coco(file, part_of_coco(content, {*known.img_ids[splits == number].tolist()}))
