"""Convert a folder in Pascal VOC format to a COCO annotation file.

python tools/misc/voc2coco.py VOC_ROOT VOC_ROOT/annotations/train.json --split train

Reads `Annotations/*.xml`, `ImageSets/Main/<split>.txt` and the names in `JPEGImages/`; without such folders
XML files and images in the folder itself, as labelImg and Roboflow write them. VOC counts pixels from 1 and
includes the last one, so its box (1, 1, 10, 10) becomes x 0, y 0, width 10, height 10. Objects marked
`difficult`, which VOC's own evaluation ignores, become `iscrowd` 1, the one mark by which COCO's ignores
them; they are not trained on either. Category ids count from 1 in the order of the names.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmdet.cli import make_parser, parse
from mmdet.files import IMAGE_SUFFIXES, suggest, write_coco

SECOND_COLUMN = re.compile(r'\s+(-1|0|1)$')
Entry = dict[str, Any]  # of a COCO annotation file, without its ids


def read_xml(xml_file: Path, images: Path) -> tuple[Entry, list[tuple[str, Entry]]]:
    """Read one XML file; the size comes from the image, turned where the XML says so.

    Returns:
        The image, and the name of the class of each object with its annotation.

    Raises:
        ValueError: Not XML, or a needed element is missing or no number; names the file.
        OSError: The image is not in `images`, or is none.
    """
    from PIL import Image

    try:
        root = ElementTree.parse(xml_file).getroot()
        objects = [_read_object(element) for element in root.iter('object')]
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f'{xml_file}: {error}') from error
    file_name = _image_name(root.findtext('filename', ''), xml_file, images)
    with Image.open(images / file_name) as image:  # reads the header alone
        stored = image.size
    said = [root.findtext(f'size/{side}') for side in ('width', 'height')]
    width, height = stored[::-1] if said == [*map(str, stored[::-1])] else stored  # labeled as EXIF turns it
    return {'file_name': file_name, 'width': width, 'height': height}, objects


def _read_object(element: ElementTree.Element) -> tuple[str, Entry]:
    name = (element.findtext('name') or '').strip()
    if not name:
        raise ValueError('an <object> has no <name>')
    sides = [element.findtext(f'bndbox/{side}') for side in ('xmin', 'ymin', 'xmax', 'ymax')]
    try:
        x1, y1, x2, y2 = (float(side or '') for side in sides)
    except ValueError as error:
        raise ValueError(f'the <bndbox> of a {name} is {sides}, not four numbers') from error
    width, height = x2 - x1 + 1, y2 - y1 + 1
    difficult = (element.findtext('difficult') or '0').strip()
    if difficult not in ('0', '1'):
        raise ValueError(f'the <difficult> of a {name} is {difficult!r}, not 0 or 1')
    bbox = [x1 - 1, y1 - 1, width, height]
    return name, {'bbox': bbox, 'area': width * height, 'iscrowd': int(difficult)}


def _image_name(said: str, xml_file: Path, images: Path) -> str:
    """Find the image: what the XML says, else the XML's own name, as sets get renamed after labeling."""
    suffixes = (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES))
    names = [Path(said.strip()).name, *(xml_file.stem + suffix for suffix in suffixes)]
    for name in names:
        if name and (images / name).is_file():
            return name
    near = suggest(images / names[0], similar=False)
    raise FileNotFoundError(f'{xml_file}: neither {said!r} nor {names[1]} is in {images}.{near}')


def convert(root: Path, split: str | None = None, classes: Sequence[str] | None = None) -> dict[str, Any]:
    """Convert a VOC folder to the content of a COCO annotation file.

    Args:
        root: Folder with Annotations and JPEGImages, or of XML files and images.
        split: Name of a list in ImageSets/Main; None: every XML file.
        classes: Names in the order of their ids; objects of other classes are left out. None: all names of
            the folder, whatever the split, in alphabetical order, so that all splits have the same ids.
    """
    files = sorted(_folder(root, 'Annotations').glob('*.xml'))
    if not files:
        raise FileNotFoundError(f'VOC_ROOT, {root}, holds no XML files, nor does a folder Annotations in it')
    chosen = files if split is None else _listed(root, split)
    needed = dict.fromkeys([*chosen, *files] if classes is None else chosen)
    read = {file: read_xml(file, _folder(root, 'JPEGImages')) for file in needed}
    if classes is None:
        classes = sorted({name for _, objects in read.values() for name, _ in objects})
    ids = {name: number for number, name in enumerate(classes, start=1)}
    images = [{'id': number, **read[file][0]} for number, file in enumerate(chosen, start=1)]
    annotations = [
        {'image_id': image['id'], 'category_id': ids[name], **annotation}
        for image, file in zip(images, chosen, strict=True)
        for name, annotation in read[file][1]
        if name in ids
    ]
    return {
        'images': images,
        'annotations': [{'id': number, **one} for number, one in enumerate(annotations, start=1)],
        'categories': [{'id': number, 'name': name} for name, number in ids.items()],
    }


def _folder(root: Path, name: str) -> Path:
    return root / name if (root / name).is_dir() else root


def _listed(root: Path, split: str) -> list[Path]:
    """Find the XML files that a list names, each once; the second column of lists of one class is ignored.

    Raises:
        FileNotFoundError: No such list, nothing in it, or no such XML file; names list and line.
    """
    lists, folder = root / 'ImageSets' / 'Main', _folder(root, 'Annotations')
    file = lists / f'{split}.txt'
    if not file.is_file():
        known = ', '.join(sorted(path.stem for path in lists.glob('*.txt'))) or 'none'
        raise FileNotFoundError(f'{file} is missing; lists that are there: {known}.{suggest(file)}')
    found: dict[Path, None] = {}
    for number, line in enumerate(file.read_text(encoding='utf-8-sig').splitlines(), start=1):
        whole = line.strip()
        name = SECOND_COLUMN.sub('', whole)
        tries = [folder / f'{one}.xml' for one in (whole, name, Path(whole).stem, Path(name).stem)]
        there = [xml_file for xml_file in tries if xml_file.is_file()]
        if whole and not there:
            raise FileNotFoundError(f'{file}, line {number}: there is no {tries[1]}.{suggest(tries[1])}')
        found |= dict.fromkeys(there[:1])
    if not found:
        raise FileNotFoundError(f'{file} names nothing')
    return [*found]


def main(argv: Sequence[str] | None = None) -> None:
    """Convert what the arguments name."""
    parser = make_parser(__doc__)
    parser.add_argument(
        'voc_root',
        type=Path,
        help='folder with Annotations, ImageSets and JPEGImages, or of XML files and images',
    )
    parser.add_argument('out', type=Path, help='COCO annotation file to write')
    parser.add_argument(
        '--split', help='a list in ImageSets/Main, such as trainval (default: every XML file)'
    )
    parser.add_argument(
        '--classes', type=Path, help='text file with one class name per line (default: all found)'
    )
    args = parse(parser, argv)
    names = None
    if args.classes is not None:
        names = [line.strip() for line in args.classes.read_text().splitlines() if line.strip()]
    write_coco(args.out, convert(args.voc_root, args.split, names))
    images = _folder(args.voc_root, 'JPEGImages').relative_to(args.voc_root)
    print(
        f'convert each split, then use: --data-root {args.voc_root} --cfg-options train_img={images}/ '
        f'val_img={images}/ train_ann=... val_ann=... with paths such as {args.out.resolve()}'
    )
