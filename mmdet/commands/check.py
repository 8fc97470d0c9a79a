"""Check a data set before training: faulty annotations, unreadable images, sizes of boxes and anchors.

python tools/misc/check_dataset.py configs/ssd/ssd300.py --data-root data/coco2017

Reads the annotations and decodes every image as training and evaluation do, in parallel, and names each fault
once. Then counts images and objects, prints box sizes at the network input and how many boxes the anchors
match, and draws both. Exit status 1 when a training or an evaluation with this config would stop, else 0.
"""

import argparse
import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from mmdet.cli import (
    add_config_arguments,
    default_work_dir,
    make_parser,
    make_progress,
    message_of,
    not_negative,
    parse,
    usable_cores,
)
from mmdet.files import suggest

SPLITS = ('train', 'val', 'test')
AT_A_TIME = 16  # images that a worker is given together
SHOWN = 20  # lines on the terminal for the images of a split; the file holds all
Entry = dict[str, Any]  # of bad_data.json


class Photo(NamedTuple):
    """What there is to say of an image file."""

    img_id: int
    fault: str | None  # why it cannot be used
    reading: str = ''  # how it is read if its EXIF data turn it
    digest: str = ''  # of its content


class Found(NamedTuple):
    """What is wrong with one split."""

    annotations: list[Entry]
    images: list[Entry]
    stops: list[str]  # why a run with this config would stop, each with its remedy
    read: int  # image files
    dataset: Any  # None where its annotations are refused
    digests: dict[str, list[str]]  # of the content of each image file -> its names


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument(
        '--split', nargs='+', choices=SPLITS, help='default: all; test only when it is not the same as val'
    )
    parser.add_argument('--workers', type=not_negative, default=usable_cores(), help='default: one per core')
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE.json',
        help='report, laid out as bad_data.json; default: work_dirs/<config name>/check_dataset.json',
    )
    return parse(parser, argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Check the splits of a config and write the report; returns the exit status."""
    args = parse_args(argv)
    from mmdet.engine.hooks import write_bad_data

    out = args.out or default_work_dir(args.config) / 'check_dataset.json'
    out.parent.mkdir(parents=True, exist_ok=True)
    cfg, datasets = choose_datasets(args)
    start = time.perf_counter()
    by_split = {split: check(split, dataset, args.workers) for split, dataset in datasets.items()}
    found = [*by_split.values()]
    images = sum(one.read for one in found)
    seconds = time.perf_counter() - start
    annotations = [entry for one in found for entry in one.annotations]
    write_bad_data(out, annotations, [entry for one in found for entry in one.images])
    print(f'{images} image files in {seconds:.1f} s ({images / seconds:.0f} images/s); report: {out}')
    print_shared(by_split)
    print_sizes(cfg, {split: one.dataset for split, one in by_split.items() if one.dataset}, out)
    stops = [line for one in found for line in one.stops]
    print('\n'.join(stops) or 'nothing would stop a training or an evaluation')
    return int(bool(stops))


def print_shared(found: dict[str, Found]) -> None:
    """Print the photos that occur twice in a split, or in two splits: files of the same content."""
    for split, result in found.items():
        copies = [' and '.join(names) for names in result.digests.values() if len(names) > 1]
        if copies:
            print(f'photos that occur more than once in {split}: {len(copies)}, such as {copies[0]}')
    for one, other in combinations(found, 2):
        first, second = found[one].digests, found[other].digests
        pairs = [f'{first[key][0]} and {second[key][0]}' for key in sorted(first.keys() & second.keys())]
        if pairs:
            print(f'photos in both {one} and {other}: {len(pairs)}, such as {", ".join(pairs[:3])}')


def print_sizes(cfg: Any, datasets: dict[str, Any], out: Path) -> None:
    """Print what the splits hold, how large boxes are for the network, and whether the anchors reach them.

    Draws both beside the report `out`.
    """
    import numpy as np

    from mmdet.analysis.boxes import AnchorFit, input_boxes, size_line
    from mmdet.analysis.plots import plot_boxes

    boxes = {split: input_boxes(dataset) for split, dataset in datasets.items()}
    boxes = {split: found for split, found in boxes.items() if len(found.xyxy)}
    if not boxes:
        return
    for split, found in boxes.items():
        print(datasets[split].class_table())
        print(f'{split}: {size_line(found)}')
    anchors = np.zeros((0, 2), np.float32)
    if 'backbone' in cfg.model:  # a teacher has no anchors
        split, first = next(iter(boxes.items()))
        fit = AnchorFit(cfg, first)
        anchors = np.unique((fit.anchors[:, 2:] - fit.anchors[:, :2]).numpy().round(1), axis=0)
        print(f'anchors reach {100 * fit.share:.1f} % of the boxes of {split} at their threshold')
        better = fit.better_sizes()
        if better is not None:
            keys = ' '.join(f'"{key}={value}"' for key, value in better[1].items())
            print(f'  {100 * better[0]:.1f} % with: --cfg-options {keys}')
    sides = {split: (found.xyxy[:, 2:] - found.xyxy[:, :2]).numpy() for split, found in boxes.items()}
    print(f'picture: {plot_boxes(sides, anchors, out.with_suffix(".png"))}')


def choose_datasets(args: argparse.Namespace) -> tuple[Any, dict[str, dict[str, Any]]]:
    """Choose the data sets to check: the resolved config, and the configs of the data sets by split.

    Raises:
        ValueError: The config has none of the splits.
    """
    from mmdet.config.resolve import load_config

    asked = args.split or SPLITS
    cfg = load_config(args.config, args.cfg_options, args.data_root, for_training='train' in asked)
    loaders = {split: cfg.get(f'{split}_dataloader') for split in SPLITS if split in asked}
    datasets = {split: dict(loader.dataset) for split, loader in loaders.items() if loader is not None}
    if not args.split and datasets.get('test') == datasets.get('val'):
        datasets.pop('test', None)
    if not datasets:
        raise ValueError(f'{args.config} has no {", ".join(f"{split}_dataloader" for split in asked)}')
    return cfg, datasets


def check(split: str, cfg: dict[str, Any], workers: int) -> Found:
    """Read the annotations of a split, decode its images in worker processes, and print what is wrong."""
    from mmdet.registry import DATASETS

    try:
        dataset: Any = DATASETS.build(cfg)
    except (LookupError, OSError, TypeError, ValueError) as error:
        reason = message_of(error)
        file = str(Path(cfg['data_root'], cfg['ann_file']))
        refused = {'split': split, 'kind': 'refused', 'file': file, 'img_id': None, 'ann_id': None}
        return Found([refused | {'reason': reason}], [], [f'{split} would stop: {reason}'], 0, None, {})
    annotations = [{'split': split, **fault._asdict()} for fault in dataset.faults]
    photos = read_images(split, dataset, workers)
    images: list[Entry] = [
        {'split': split, 'img_id': img_id, 'file': str(dataset.image_file(img_id)), 'reason': reason}
        for img_id, reason, _, _ in photos
        if reason is not None
    ]
    kinds = Counter(entry['kind'] for entry in annotations)
    print(f'{split}: {cfg["ann_file"]}, {len(dataset)} images to read')
    print(f'  boxes: {counts(dict(kinds.most_common()))}')
    print(f'  images without boxes to train on: {counts(dataset.without_boxes)}')
    print(f'  image files that cannot be used: {len(images)}')
    for entry in images[:SHOWN]:
        near = suggest(entry['file'], similar=False)
        print(f'    {entry["file"]} (image {entry["img_id"]}): {entry["reason"]}{near and "."}{near}')
    if len(images) > SHOWN:
        print(f'    and {len(images) - SHOWN} more, see the report')
    print_advice(dataset, {one.img_id: one.reading for one in photos if one.reading})
    stop = (
        f'{split} would stop at {len(images)} image files; mend them, or leave them out: '
        f'--cfg-options {split}_dataloader.dataset.on_bad_image=skip'
    )
    stops = [stop] if images and dataset.on_bad_image == 'fail' else []
    if len(images) == len(dataset):
        first = f'the first: {images[0]["reason"]}'
        stops = [
            f'{split} has not one image file that can be used ({first}): is {dataset.img_folder} its folder?'
        ]
    return Found(annotations, images, stops, len(dataset), dataset, _names_by_content(dataset, photos))


def _names_by_content(dataset: Any, photos: Sequence[Photo]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for one in photos:
        if one.fault is None:
            names.setdefault(one.digest, []).append(str(dataset.image_file(one.img_id)))
    return names


def print_advice(dataset: Any, readings: dict[int, str]) -> None:
    """Print what is odd about a split as a whole; `readings` says how images are read that EXIF data turn."""
    import numpy as np

    if dataset.advice:
        print(f'  {dataset.advice}')
    rows = np.column_stack([*dataset.objects(), dataset.bboxes])
    repeated = np.delete(dataset.ann_ids, np.unique(rows, axis=0, return_index=True)[1])
    if len(repeated):
        print(
            f'  boxes that occur more than once in an image: {len(repeated)}, such as that of annotation '
            f'{repeated[0]}; an evaluation can find one of them only'
        )
    found = Counter(readings.values())
    print(f'  images that EXIF data turn: {counts({f"read {how}": found[how] for how in sorted(found)})}')
    if len(found) > 1:
        upright, stored = (
            next(img_id for img_id, how in readings.items() if how == one) for one in ('upright', 'as stored')
        )
        print(
            f'    the set mixes two ways: the size in the annotations is that of image {stored} as stored, '
            f'but image {upright} is read upright. Where boxes lie wrong see docs/data.md, EXIF'
        )


def read_images(split: str, dataset: Any, workers: int) -> list[Photo]:
    """Decode the images of a split in parallel, in the order of the data set.

    Raises:
        OSError: A worker was killed.
    """
    from torch.utils.data import DataLoader

    from mmdet.datasets.worker import init_worker

    loader: Any = DataLoader(
        dataset.img_ids.tolist(),
        batch_size=AT_A_TIME,
        num_workers=min(workers, len(dataset)),
        collate_fn=partial(decode, dataset),  # in the worker
        worker_init_fn=init_worker,
    )
    found: list[Photo] = []
    with make_progress() as progress:
        task = progress.add_task(split, total=len(dataset))
        try:
            for answers in loader:
                found += answers
                progress.advance(task, len(answers))
        except RuntimeError as error:
            if 'worker' not in str(error):
                raise
            first = dataset.image_file(dataset.img_ids[int(progress.tasks[0].completed)])
            raise OSError(
                f'a process was killed, perhaps for want of memory, at one of the images from {first} on. '
                f'Use fewer: --workers {workers // 2} (0: none, then the culprit ends this one)'
            ) from error
    return found


def decode(dataset: Any, img_ids: list[int]) -> list[Photo]:
    """Decode images, and say what there is to say of each."""
    photos = []
    for img_id in img_ids:
        fault = dataset.read_image_fault(img_id)
        if fault is None:
            content = dataset.image_file(img_id).read_bytes()
            digest = hashlib.blake2b(content, digest_size=16).hexdigest()
            photos.append(Photo(img_id, None, dataset.exif_reading(img_id), digest))
        else:
            photos.append(Photo(img_id, fault))
    return photos


def counts(numbers: dict[str, int]) -> str:
    """Format counts: '3 empty, 1 all boxes dropped', without what does not occur."""
    return ', '.join(f'{number} {name}' for name, number in numbers.items() if number) or 'none'
