"""Detect on image files and write pictures of what was found.

python tools/image_demo.py photo.jpg configs/ssd/ssd300.py work_dirs/ssd300/latest.pth
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmdet.cli import add_config_options, add_trust_argument, make_parser, parse
from mmdet.files import suggest

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp'}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument('img', type=Path, help='an image, or a folder of images')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out-dir', type=Path, default=Path('outputs'), help='folder of the pictures')
    parser.add_argument('--device', help='default: the first GPU, or the CPU')
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score that is drawn')
    add_config_options(parser)
    add_trust_argument(parser)
    return parse(parser, argv)


def image_files(path: Path) -> list[Path]:
    """List the images that a path names: itself, or those in the folder.

    Raises:
        ValueError: A folder without images.
    """
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f'{path} holds no image ({", ".join(sorted(SUFFIXES))})')
    return files


def main(argv: Sequence[str] | None = None) -> None:
    """Detect, draw, write."""
    args = parse_args(argv)
    from mmdet.apis import inference_detector, init_detector
    from mmdet.datasets.transforms import BadImageError, read_image
    from mmdet.visualization.canvas import write_picture
    from mmdet.visualization.detections import draw_detections

    files = image_files(args.img)
    model = init_detector(args.config, args.checkpoint, args.device, args.cfg_options, args.trust_checkpoint)
    classes = model.dataset_meta['classes']
    for file in files:
        try:
            found = inference_detector(model, file).pred_instances
        except BadImageError as error:
            raise ValueError(f'{file}: {error}.{suggest(file)}') from error
        shown = int((found.scores >= args.score_thr).sum())
        boxes = (found.bboxes, found.labels, found.scores)
        out = args.out_dir / f'{file.stem}.jpg'
        write_picture(out, draw_detections(read_image(file), *boxes, classes, args.score_thr))
        print(f'{file}: {shown} objects with a score of {args.score_thr:g} or more, drawn in {out}')
