"""Detect on photos and videos; write pictures, and detections as JSON, CSV or YOLO labels.

python tools/image_demo.py photo.jpg configs/ssd/ssd300.py work_dirs/ssd300/latest.pth

A file that cannot be read is skipped, and the exit status is 1. The picture of a.png is a.jpg (of a video
a.mp4; a.png.jpg where there is an a.tif, too). Folders are kept below the one that all files are in.
--save json writes detections.json (COCO's format, with scores), csv detections.csv, yolo labels/a.txt.
"""

import argparse
import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mmdet.cli import add_config_options, add_trust_argument, make_parser, parse, positive
from mmdet.files import IMAGE_SUFFIXES, suggest

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')


class Frame(NamedTuple):
    """A photo, or a frame of a video."""

    file: Path
    image: Any  # uint8 (H, W, 3) BGR
    number: int | None = None  # of a frame, from 0
    rate: float = 0  # frames a second


class Found(NamedTuple):
    """What was found in a photo or a frame."""

    name: Path  # of the results, without suffix
    image: dict[str, Any]  # COCO's entry; a frame of a video has its number in it
    objects: list[dict[str, Any]]  # COCO's annotations: category_id, score, bbox xywh in pixels


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument('img', type=Path, nargs='+', help='photos, videos, or folders of them')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--recursive', action='store_true', help='include subfolders')
    parser.add_argument('--out-dir', type=Path, default=Path('outputs'), help='folder of the results')
    parser.add_argument(
        '--save', nargs='+', choices=['pictures', *WRITERS], default=['pictures'], help='default: pictures'
    )
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score that is drawn or written')
    parser.add_argument('--batch-size', type=positive, default=1, help='images per forward pass')
    parser.add_argument('--device', help='default: the first GPU, or the CPU')
    add_config_options(parser)
    add_trust_argument(parser)
    args = parse(parser, argv)
    for place, word, of_other in (('CONFIG', args.config, '.pth'), ('CHECKPOINT', args.checkpoint, '.py')):
        if Path(word).suffix.lower() in (of_other, *IMAGE_SUFFIXES, *VIDEO_SUFFIXES) or Path(word).is_dir():
            parser.error(f'the order is PHOTOS CONFIG CHECKPOINT, and {place} is {word}')
    return args


def find_files(paths: Sequence[Path], recursive: bool, out_dir: Path) -> list[Path]:
    """List the photos and videos that paths name: files, and those in folders, except what is in `out_dir`.

    Raises:
        ValueError: A folder without any.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(path.rglob('*') if recursive else path.iterdir())
        inside = [file for file in inside if out_dir.resolve() not in file.resolve().parents]
        kept = [file for file in inside if file.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)]
        found += kept
        if not kept:
            advice = '' if recursive else '. --recursive looks into its folders'
            raise ValueError(f'{path} holds no image and no video ({", ".join(IMAGE_SUFFIXES)}, ...){advice}')
    return [*dict.fromkeys(found)]


def is_video(file: Path) -> bool:
    """Tell a video by its suffix."""
    return file.suffix.lower() in VIDEO_SUFFIXES


def name_results(files: Sequence[Path]) -> dict[Path, Path]:
    """Name the results of each file, without suffix, so that no two share a name."""
    folder = os.path.commonpath([file.parent.absolute() for file in files])
    names = [Path(os.path.relpath(file.absolute(), folder)) for file in files]
    counts = Counter(name.with_suffix('') for name in names)
    short = [name if counts[name.with_suffix('')] > 1 else name.with_suffix('') for name in names]
    unique = len(set(short)) == len(names)  # a.png beside a.tif and a.png.jpg is none
    return dict(zip(files, short if unique else names, strict=True))


def name_pictures(names: Mapping[Path, Path], out_dir: Path) -> dict[Path, Path]:
    """Name the picture, or the video, that is drawn of each file.

    Raises:
        ValueError: It would be written over.
    """
    pictures = {
        file: out_dir / f'{name}.{"mp4" if is_video(file) else "jpg"}' for file, name in names.items()
    }
    if clash := [file for file, picture in pictures.items() if picture.resolve() == file.resolve()]:
        raise ValueError(f'{clash[0]} would be written over; give another --out-dir')
    return pictures


def read_frames(files: Sequence[Path], bad: list[Path]) -> Iterator[Frame]:
    """Yield photos, and videos frame by frame; files that cannot be read are told and appended to `bad`."""
    from mmdet.datasets.transforms import BadImageError, read_image

    for file in files:
        try:
            if is_video(file):
                yield from _read_video(file)
            else:
                yield Frame(file, read_image(file))
        except BadImageError as error:
            bad.append(file)
            print(f'{file}: {error}.{suggest(file)}', file=sys.stderr)


def _read_video(file: Path) -> Iterator[Frame]:
    import cv2

    from mmdet.datasets.transforms import BadImageError

    video, number = cv2.VideoCapture(str(file)), 0
    rate = video.get(cv2.CAP_PROP_FPS) or 25.0
    while (read := video.read())[0]:
        yield Frame(file, read[1], number, rate)
        number += 1
    if not number:
        raise BadImageError(
            'the file is not a video that OpenCV reads' if file.is_file() else 'the file is missing'
        )


def write_json(found: Sequence[Found], classes: Mapping[int, str], out_dir: Path) -> None:
    """Write detections.json: COCO's format with scores, and with the number of a video's frame."""
    annotations = [
        {'id': number, **one, 'area': one['bbox'][2] * one['bbox'][3], 'iscrowd': 0}
        for number, one in enumerate((one for each in found for one in each.objects), start=1)
    ]
    categories = [{'id': category, 'name': name} for category, name in classes.items()]
    content = {'images': [one.image for one in found], 'annotations': annotations, 'categories': categories}
    (out_dir / 'detections.json').write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8')


def write_csv(found: Sequence[Found], classes: Mapping[int, str], out_dir: Path) -> None:
    """Write detections.csv, a line an object."""
    with (out_dir / 'detections.csv').open('w', encoding='utf-8', newline='') as file:
        table = csv.writer(file)
        table.writerow(['file', 'frame', 'class', 'score', 'x1', 'y1', 'x2', 'y2'])
        for _, image, objects in found:
            for one in objects:
                x, y, w, h = one['bbox']
                numbers = [f'{one["score"]:.4f}', *(f'{value:.2f}' for value in (x, y, x + w, y + h))]
                name = classes[one['category_id']]
                table.writerow([image['file_name'], image.get('frame'), name, *numbers])


def write_yolo(found: Sequence[Found], classes: Mapping[int, str], out_dir: Path) -> None:
    """Write a file an image: number of the class; x, y of the center, width and height as shares."""
    labels = {category: label for label, category in enumerate(classes)}
    for name, image, objects in found:
        width, height, lines = image['width'], image['height'], []
        for one in objects:
            x, y, w, h = one['bbox']
            shares = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            lines.append(f'{labels[one["category_id"]]} {" ".join(f"{share:.6f}" for share in shares)}\n')
        stem = f'{name.name}_{image["frame"]:06}' if 'frame' in image else name.name
        file = out_dir / 'labels' / name.with_name(f'{stem}.txt')
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(''.join(lines))


WRITERS = {'json': write_json, 'csv': write_csv, 'yolo': write_yolo}


def draw(frame: Frame, sample: Any, file: Path, videos: dict[Path, Any]) -> None:
    """Draw what was found in a photo into a file; a frame is appended to its video, one of `videos`."""
    import cv2

    picture = sample.draw(file if frame.number is None else None, frame.image, score_thr=0.0)
    if frame.number == 0:
        file.parent.mkdir(parents=True, exist_ok=True)
        code = cv2.VideoWriter.fourcc(*'mp4v')
        videos[file] = cv2.VideoWriter(str(file), code, frame.rate, picture.shape[1::-1])
        if not videos[file].isOpened():
            raise OSError(f'{file} cannot be written as a video; another --out-dir may help')
    if frame.number is not None:
        videos[file].write(picture)


def main(argv: Sequence[str] | None = None) -> int:
    """Detect, draw, write; returns the exit status."""
    args = parse_args(argv)
    files = find_files(args.img, args.recursive, args.out_dir)
    names = name_results(files)
    pictures = name_pictures(names, args.out_dir) if 'pictures' in args.save else {}
    from mmdet.apis import inference_detector, init_detector

    model = init_detector(args.config, args.checkpoint, args.device, args.cfg_options, args.trust_checkpoint)
    bad: list[Path] = []
    found: list[Found] = []
    videos: dict[Path, Any] = {}
    frames = read_frames(files, bad)
    while batch := list(islice(frames, args.batch_size)):
        samples = inference_detector(model, [one.image for one in batch], args.score_thr)
        for frame, sample in zip(batch, samples, strict=True):
            name, (height, width) = names[frame.file], frame.image.shape[:2]
            image = {'id': len(found) + 1, 'file_name': str(name.with_name(frame.file.name))}
            image |= {'width': width, 'height': height}
            part = place = ''
            if frame.number is not None:
                image['frame'], part = frame.number, f', frame {frame.number}'
            if frame.file in pictures:
                draw(frame, sample, pictures[frame.file], videos)
                place = f', drawn in {pictures[frame.file]}'
            found.append(Found(name, image, sample.to_coco(len(found) + 1)))
            sure = f'with a score of {args.score_thr:g} or more'
            print(f'{frame.file}{part}: {len(found[-1].objects)} objects {sure}{place}')
    for video in videos.values():
        video.release()
    args.out_dir.mkdir(parents=True, exist_ok=True)
    meta = model.dataset_meta
    for kind in WRITERS.keys() & args.save:
        WRITERS[kind](found, dict(zip(meta['category_ids'], meta['classes'], strict=True)), args.out_dir)
    if len(files) > 1:
        total = sum(len(one.objects) for one in found)
        print(f'{args.out_dir}: {total} objects in {len(files)} files, {len(bad)} of which could not be read')
    return int(bool(bad))
