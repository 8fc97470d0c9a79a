"""Draw samples of a data set with their boxes, as training (augmented) or evaluation gets them.

python tools/misc/browse_dataset.py configs/ssd/ssd300.py --data-root data/coco2017 --number 12
"""

from collections.abc import Sequence
from pathlib import Path

from mmdet.cli import add_config_arguments, default_work_dir, make_parser, parse, positive

SHEET_COLUMNS = 4


def main(argv: Sequence[str] | None = None) -> None:
    """Write one PNG file a sample, and a sheet of all of them.

    Raises:
        ValueError: Not one image can be read.
    """
    parser = make_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument('--out-dir', type=Path, help='default: work_dirs/<config name>/browse_<split>')
    parser.add_argument('--number', type=positive, default=16, help='how many samples, spread over the set')
    parser.add_argument('--split', choices=['train', 'val'], default='train')
    args = parse(parser, argv)
    import numpy as np

    from mmdet.config.resolve import load_config, run_seed
    from mmdet.datasets.collate import BadImage
    from mmdet.registry import DATASETS
    from mmdet.visualization.canvas import tile, with_title, write_picture
    from mmdet.visualization.detections import draw_detections

    cfg = load_config(args.config, args.cfg_options, args.data_root, for_training=args.split == 'train')
    dataset_cfg = dict(cfg[f'{args.split}_dataloader'].dataset)
    dataset_cfg.setdefault('seed', run_seed(cfg))
    dataset_cfg['pipeline'][-1].pop('decode', None)  # the device would draw the same pictures
    dataset = DATASETS.build(dataset_cfg)
    out_dir = args.out_dir or default_work_dir(args.config) / f'browse_{args.split}'

    pictures = []
    for draw, index in enumerate(np.linspace(0, len(dataset), args.number, endpoint=False).astype(int)):
        sample = dataset[int(index), draw]  # with more samples than images, one is augmented anew each time
        if isinstance(sample, BadImage):
            print(f'left out: {sample.file}: {sample.reason}')
            continue
        image = sample['img'].permute(1, 2, 0).numpy()
        classes = dataset.metainfo['classes']
        picture = draw_detections(image, sample['bboxes'], sample['labels'], classes=classes)
        write_picture(out_dir / f'{draw:03d}_{sample["img_id"]}.png', picture)
        height, width = sample['img_shape']
        count = len(sample['labels'])
        title = f'{sample["img_id"]} · {width} × {height} · {count} box{"es" * (count != 1)}'
        pictures.append(with_title(picture, title, size=13))
    if not pictures:
        raise ValueError(f'not one of these images of {args.split} can be read')
    write_picture(out_dir / 'sheet.png', tile(pictures, SHEET_COLUMNS))
    print(f'{len(pictures)} samples of {args.split} in {out_dir}, all of them in {out_dir / "sheet.png"}')
