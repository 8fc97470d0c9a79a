"""Count the objects that a teacher is trained on, and export its crops as an image folder.

python tools/misc/crop_set.py configs_dev/teachers/resnet50_ssd.py --data-root data/coco2017
python tools/misc/crop_set.py configs_dev/teachers/resnet50_ssd.py --export crops --split val

An export holds DIR/SPLIT/LABEL_CLASS/IMAGE_OBJECT.png and DIR/classes.json. Folders sorted by name are in the
order of the labels, as torchvision's ImageFolder numbers them; those of classes without objects are empty.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.cli import add_config_arguments, make_parser, make_progress, parse

LONGEST = 60  # characters of a class name in the name of its folder


def main(argv: Sequence[str] | None = None) -> None:
    """Print the counts, and export when asked to."""
    parser = make_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument('--split', choices=['train', 'val'], default='train')
    parser.add_argument(
        '--export',
        type=Path,
        metavar='DIR',
        help='write the crops there, each image once; those of train augmented as in training',
    )
    args = parse(parser, argv)
    import torch

    from mmdet.config.resolve import load_config, run_seed
    from mmdet.engine import DetRunner

    cfg = load_config(args.config, args.cfg_options, args.data_root, for_training=args.split == 'train')
    if str(cfg.model.get('type')).split('.')[-1] != 'CropClassifier':
        raise ValueError(
            f'{args.config} trains no teacher: its model is a {cfg.model.get("type")}. Give one of '
            'configs_dev/teachers/, e.g. configs_dev/teachers/resnet50_ssd.py'
        )
    seed = run_seed(cfg)
    loader = DetRunner.build_dataloader(cfg[f'{args.split}_dataloader'], seed)
    dataset: Any = loader.dataset
    sampler: Any = loader.sampler
    print(dataset.class_table(sampler.times_shown if args.split == 'train' else None))
    if args.export is not None:
        folders = make_folders(args.export, args.split, dataset.metainfo['classes'])
        torch.manual_seed(seed)  # of the box jitter
        export(cfg, args.split, folders, len(dataset))


def make_folders(folder: Path, split: str, classes: Sequence[str]) -> list[Path]:
    """Make the folder of each class, in the order of the labels, and classes.json.

    Raises:
        FileExistsError: The split's folder holds something already.
        ValueError: classes.json is there and names other classes.
    """
    target = folder / split
    if target.exists() and any(target.iterdir()):
        raise FileExistsError(f'{target} is not empty: give another folder to --export, or remove it first')
    digits = max(2, len(str(len(classes) - 1)))
    names = {f'{label:0{digits}d}_{safe(name)}': name for label, name in enumerate(classes)}
    text = json.dumps(names, indent=1, ensure_ascii=False)
    file = folder / 'classes.json'
    if file.exists() and file.read_text(encoding='utf-8') != text:
        raise ValueError(f'{file} names other classes, or in another order: give another folder to --export')
    for name in names:
        (target / name).mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding='utf-8')
    return [target / name for name in names]


def safe(name: str) -> str:
    """Make a class name part of a folder's name: what some file systems refuse becomes an underscore."""
    return re.sub(r'[^\w .()+-]', '_', name)[:LONGEST].rstrip(' .')


def export(cfg: Any, split: str, folders: Sequence[Path], num_images: int) -> None:
    """Write the crops of a split as a teacher gets them, in 8-bit pixels, to the folders of their labels."""
    from mmengine.device import get_device

    from mmdet.analysis.teacher import read_batches
    from mmdet.registry import MODELS
    from mmdet.visualization.canvas import write_picture

    model: Any = MODELS.build(cfg.model).to(get_device()).train(split == 'train')
    written = left_out = 0
    with make_progress() as progress:
        task = progress.add_task(split, total=num_images)
        for batch in read_batches(cfg, split, model.data_preprocessor):
            crops, kept = model.crop(batch.images, batch.gt)
            mean, std = (three[:, None, None] for three in model.normalization)
            pixels = (crops * std + mean).round().clamp(0, 255).byte()  # (G, 3, S, S)
            pictures = pixels.flip(1).permute(0, 2, 3, 1).cpu().numpy()  # BGR
            ids = kept.img_id[kept.gt_image].tolist()
            rows = kept.valid.nonzero()[:, 1].tolist()
            for picture, img_id, row, label in zip(pictures, ids, rows, kept.gt_labels.tolist(), strict=True):
                write_picture(folders[label] / f'{img_id}_{row}.png', picture)
            written += len(crops)
            left_out += int(batch.gt.valid.sum()) - len(crops)
            progress.advance(task, int((batch.gt.img_id >= 0).sum()) + len(batch.bad_images))
    print(f'{written} crops of {len(folders)} classes in {folders[0].parent}')
    if left_out:
        print(f'{left_out} objects left out: a side below min_side={model.min_side:g} pixels')
