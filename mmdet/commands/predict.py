"""Detect on image files and write pictures of what was found.

python tools/image_demo.py photo.jpg configs/ssd/ssd300.py work_dirs/ssd300/latest.pth
"""

import argparse
from pathlib import Path

import cv2

from mmdet.apis import inference_detector, init_detector
from mmdet.cli import add_trust_argument
from mmdet.config.options import DictAction
from mmdet.datasets.transforms import BadImageError, read_image
from mmdet.visualization.detections import draw_detections

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp'}


def main() -> None:
    """Detect, draw, write."""
    parser = argparse.ArgumentParser(description='Detect on image files.')
    parser.add_argument('img', type=Path, help='an image, or a folder of images')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out-dir', type=Path, default=Path('outputs'), help='folder of the pictures')
    parser.add_argument('--device', help='default: the first GPU, or the CPU')
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score that is drawn')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    add_trust_argument(parser)
    args = parser.parse_args()
    files = [args.img]
    if args.img.is_dir():
        files = sorted(file for file in args.img.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise ValueError(f'{args.img} holds no image ({", ".join(sorted(SUFFIXES))})')
    model = init_detector(args.config, args.checkpoint, args.device, args.cfg_options, args.trust_checkpoint)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    for file in files:
        try:
            found = inference_detector(model, file).pred_instances
        except BadImageError as error:
            raise ValueError(f'{file}: {error}') from error
        shown = int((found.scores >= args.score_thr).sum())
        picture = draw_detections(
            read_image(file),
            found.bboxes,
            found.labels,
            found.scores,
            model.dataset_meta['classes'],
            args.score_thr,
        )
        out = args.out_dir / f'{file.stem}.jpg'
        cv2.imwrite(str(out), picture)
        print(f'{file}: {shown} objects with a score of {args.score_thr:g} or more, drawn in {out}')
