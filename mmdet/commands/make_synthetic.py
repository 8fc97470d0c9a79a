"""Generate a small data set in COCO format and layout.

python tools/misc/make_synthetic.py data/synthetic --train 1000 --val 200
"""

import time
from collections.abc import Sequence
from pathlib import Path

from mmdet.cli import make_parser, parse


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the images and write their annotations."""
    parser = make_parser(__doc__)
    parser.add_argument('out_dir', type=Path, help='folder to write to, for instance data/synthetic')
    parser.add_argument('--train', type=int, default=1000, help='number of training images')
    parser.add_argument('--val', type=int, default=200, help='number of validation images')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--size', type=int, default=320, help='longer side of the images, in pixels')
    args = parse(parser, argv)
    from mmdet.synthetic.dataset import CLASSES, make_dataset

    start = time.perf_counter()
    drawn = make_dataset(args.out_dir, args.train, args.val, args.seed, args.size)
    done = f'drawn in {time.perf_counter() - start:.0f} s' if drawn else 'there already, kept'
    counts = f'{args.train} training and {args.val} validation images of {len(CLASSES)} classes'
    print(f'{counts}: {done}, in {args.out_dir}')
    print(f'To use it, add to a command: --data-root {args.out_dir}')
