"""Convert a data set in YOLO format to COCO annotation files, one per split.

python tools/misc/yolo2coco.py DIR/data.yaml

Reads the YAML file of Ultralytics or Roboflow: `names` (a list, or a dict by number), `path` (the root;
default: its own folder), and `train`, `val`, `test`: a folder of images, a list of folders, or a .txt file
of image paths. The labels of images/a.jpg are in labels/a.txt, or beside it; an image without that file,
or with an empty one, holds no object. A polygon becomes the box around it. Category ids count from 1.
"""

import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmdet.cli import make_parser, parse
from mmdet.files import IMAGE_SUFFIXES, suggest, write_coco

ORIENTATION = 0x0112  # the tag in EXIF data; from 5 on the image is shown with width and height swapped
SPLITS = ('train', 'val', 'test')


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file; `names` becomes a dict by class number.

    Raises:
        ValueError: It is no such file, or two classes have one name.
    """
    import yaml

    try:
        # Values stay text: a class may be named `no`, which YAML takes for false, or 010.
        data = yaml.load(file.read_text(encoding='utf-8-sig'), yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{file} is not a YAML file: {error}') from error
    names = data.get('names') if isinstance(data, dict) else None
    numbered: Any = dict(enumerate(names)) if isinstance(names, list) else names
    complete = isinstance(numbered, dict) and numbered and all(str(number).isdigit() for number in numbered)
    if not complete or not any(data.get(split) for split in SPLITS):
        raise ValueError(
            f'{file} needs three lines such as `train: images/train`, `val: images/val` and '
            "`names: ['cat', 'dog']`, in the order of the numbers in the labels"
        )
    known = {int(number): str(name) for number, name in numbered.items()}
    if twice := [name for name, count in Counter(known.values()).items() if count > 1]:
        raise ValueError(f'{file}: several classes have the name {twice[0]!r}; give each its own')
    return {**data, 'names': known}


def find_images(file: Path, data: dict[str, Any], split: str) -> list[Path]:
    """List the images of a split, in the order of their paths, each once.

    Raises:
        FileNotFoundError: A folder, a list or an image that it names is not there.
        ValueError: There is no image.
    """
    path = data.get('path') or ''  # often that of another machine
    roots = [file.parent / path, Path.cwd() / path, file.parent]
    entries = data[split] if isinstance(data[split], list) else [data[split]]
    found = [image for entry in entries for image in _images_of(str(entry), roots, f'{file}, {split}')]
    images = sorted({Path(os.path.normpath(image)) for image in found})
    if not images:
        raise ValueError(f'{file}: no image in {split}: {data[split]} ({", ".join(IMAGE_SUFFIXES)})')
    return images


def _images_of(entry: str, roots: list[Path], where: str) -> Iterator[Path]:
    """Yield the images in a folder, or those that a .txt file lists; `where` it is named is for messages."""
    # Roboflow writes ../train/images where it means train/images.
    place = _first([root / word for root in roots for word in (entry, entry.removeprefix('../'))], where)
    if place.is_dir():
        yield from (image for image in place.rglob('*') if image.suffix.lower() in IMAGE_SUFFIXES)
        return
    for number, line in enumerate(place.read_text(encoding='utf-8-sig').splitlines(), start=1):
        if line.strip():
            tries = [root / line.strip() for root in (place.parent, *roots)]
            yield _first(tries, f'{place}, line {number}')


def _first(tries: Sequence[Path], where: str) -> Path:
    """Return the first path that is there."""
    found = next((path for path in tries if path.exists()), None)
    if found is None:
        raise FileNotFoundError(f'{where}: there is no {tries[0]}.{suggest(tries[0])} `path:` is the root')
    return found


def label_file(image: Path) -> Path:
    """Name the file with the labels of an image: the last folder `images` of its path is `labels` there."""
    return Path('/labels/'.join(image.as_posix().rsplit('/images/', 1))).with_suffix('.txt')


def read_labels(file: Path, size: tuple[int, int], data: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the objects of an image as COCO annotations without ids.

    A line holds the number of the class, and x, y of the center, width and height (keypoints may follow), or
    x and y of three or more corners, all as shares of the image's sides.

    Args:
        file: Labels; one that is missing holds none.
        size: (width, height) of the image in pixels.
        data: From `read_yaml`; with `kpt_shape` keypoints follow the boxes.

    Raises:
        ValueError: Names file and line.
    """
    try:
        lines = file.read_text(encoding='utf-8-sig').splitlines() if file.is_file() else []
    except UnicodeDecodeError as error:
        raise ValueError(f'{file} is not text in UTF-8: {error}') from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line in lines[: number - 1]:  # of equal lines Ultralytics takes one, too
            continue
        try:
            label, *shares = map(float, line.split())
            if label not in data['names']:
                raise ValueError(f'there is no class {label:g} in names')
            x1, y1, x2, y2 = _corners(shares[:4] if 'kpt_shape' in data else shares)
        except ValueError as error:
            raise ValueError(f'{file}, line {number}, {line.strip()[:80]!r}: {error}') from error
        width, height = (x2 - x1) * size[0], (y2 - y1) * size[1]
        bbox = [round(value, 3) for value in (x1 * size[0], y1 * size[1], width, height)]
        found.append({'category_id': int(label) + 1, 'bbox': bbox, 'area': width * height, 'iscrowd': 0})
    return found


def _corners(shares: Sequence[float]) -> tuple[float, float, float, float]:
    """Make x1, y1, x2, y2 of a box (x, y of its center, width, height), or of the corners of a polygon."""
    if len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
        raise ValueError(f'{len(shares)} numbers after the class are neither a box nor a polygon')
    if not all(-1 <= share <= 2 for share in shares):
        raise ValueError('the numbers are not shares of the sides, from 0 to 1; are they pixels?')
    if len(shares) == 4:
        x, y, w, h = shares
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2
    xs, ys = shares[::2], shares[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def convert(images: Sequence[Path], data: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Convert the images of a split.

    Returns:
        The folder that all are in, and the content of a COCO annotation file.

    Raises:
        FileNotFoundError: Not one image has labels.
        OSError: An image file that cannot be read.
    """
    from PIL import Image

    folder = Path(os.path.commonpath([image.parent for image in images]))
    if not any(label_file(image).is_file() for image in images):
        raise FileNotFoundError(f'no image in {folder} has labels; looked for {label_file(images[0])}')
    listed, annotations = [], []
    for number, file in enumerate(images, start=1):
        with Image.open(file) as image:  # reads the header alone
            turned = image.getexif().get(ORIENTATION, 1) > 4
            size = image.size[::-1] if turned else image.size  # labels are those of the image as it is shown
        name = file.relative_to(folder).as_posix()
        listed.append({'id': number, 'file_name': name, 'width': size[0], 'height': size[1]})
        annotations += [{'image_id': number, **one} for one in read_labels(label_file(file), size, data)]
    return folder, {
        'images': listed,
        'annotations': [{'id': number, **one} for number, one in enumerate(annotations, start=1)],
        'categories': [{'id': label + 1, 'name': name} for label, name in sorted(data['names'].items())],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Convert what the arguments name, and print how to train on it."""
    parser = make_parser(__doc__)
    parser.add_argument('yaml', type=Path, help='data.yaml of the set')
    parser.add_argument('--out', type=Path, help='output folder; default: annotations, beside the YAML file')
    args = parse(parser, argv)
    data = read_yaml(args.yaml)
    root = args.yaml.parent.resolve()
    out = (args.out or root / 'annotations').resolve()
    words = ['--data-root', str(root), '--cfg-options']
    for split in filter(data.get, SPLITS):
        folder, content = convert(find_images(root / args.yaml.name, data, split), data)
        ann_file = out / f'{split}.json'
        write_coco(ann_file, content)
        for key, path in (('ann', ann_file), ('img', folder)):
            words.append(f'{split}_{key}={path.relative_to(root) if path.is_relative_to(root) else path}')
    print(f'python tools/train.py configs/ssd/ssd300.py {shlex.join(words)}')
    if not (data.get('train') and data.get('val')):
        print(f'train and val are needed: python tools/misc/split_coco.py {ann_file} makes both of one file')
