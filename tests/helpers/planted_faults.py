"""Data sets with planted faults, and what each of them must come to.

The planter knows by construction what it plants: it uses nothing of the code that is tested.
Boxes as planted xywh, as expected xyxy, in pixels of the annotated image.
"""

import io
import json
import math
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

CATEGORIES = {905: 'pond', 7: 'brick', 31: 'leaf', 1200: 'tree', 8: 'path'}  # gaps, and in no order
BY_ID = ('brick', 'path', 'leaf', 'pond', 'tree')
SIZES = ((64, 48), (48, 64), (80, 80))  # (w, h)
HUGE = (60_000, 60_000)  # 3.6 gigapixels, more than OpenCV decodes
NAN, INF = math.nan, math.inf
Size = tuple[int, int]
Box = tuple[float | None, float | None, float | None, float | None]
Bounds = tuple[float, float, float, float]

PHRASES = {
    'not_finite': 'is not finite',
    'outside': 'lies outside',
    'too_small': 'is less than a pixel wide or high',
    'clipped': 'was clipped',
}


class Expected(NamedTuple):
    """What must be found in one split."""

    images: dict[int, Path]  # id -> file, all that are listed, in order
    sizes: dict[int, Size]  # id -> (w, h) of the annotation
    boxes: dict[int, list[tuple[int, Bounds]]]  # image id -> (label, xyxy) of the boxes that are left
    faults: dict[int, tuple[str, int, str]]  # annotation id -> kind, image id, reason
    bad: dict[int, str]  # image id -> why its file cannot be used
    without_boxes: dict[str, int]
    crowds: int
    odd: Counter[str]  # harmless oddities: kind -> how many

    @property
    def trained(self) -> list[int]:
        """Images with boxes: those that a training reads."""
        return [img_id for img_id in self.images if self.boxes[img_id]]

    @property
    def annotation_entries(self) -> set[tuple[str, int, int, str]]:
        """(kind, image id, annotation id, reason)."""
        return {(kind, img_id, ann_id, why) for ann_id, (kind, img_id, why) in self.faults.items()}

    def image_entries(self, read: list[int]) -> set[tuple[int, str, str]]:
        """(id, file, reason) of those of the images `read` that cannot be used."""
        return {(i, str(self.images[i]), self.bad[i]) for i in read if i in self.bad}


# Image files: content of an image of a size (w, h), the size in its annotation, and what is said about it


class File(NamedTuple):
    content: bytes | None  # None: missing
    size: Size
    reason: str | None = None


def picture(size: Size, mode: str = 'RGB') -> Image.Image:
    noise = np.random.default_rng(size[0]).integers(60, 200, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(size: Size, mode: str = 'RGB', kind: str = 'JPEG', **options: Any) -> bytes:
    stream = io.BytesIO()
    picture(size, mode).save(stream, kind, **options)
    return stream.getvalue()


def turned(size: Size) -> bytes:
    """To be shown turned by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(size, exif=exif)


def deep(size: Size) -> bytes:
    """16 bits a pixel."""
    stream = io.BytesIO()
    gray = np.asarray(picture(size, 'L')).astype(np.uint16) * 257
    Image.fromarray(gray).save(stream, 'PNG')
    return stream.getvalue()


def bomb(size: Size) -> bytes:
    """A PNG of a few bytes that claims a size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

    header = chunk(b'IHDR', struct.pack('>IIBBBBB', *size, 8, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b'')


def corrupt(size: Size) -> bytes:
    """A PNG whose compressed data do not fit their checksum."""
    data = bytearray(encoded(size, kind='PNG'))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


THUMBNAIL = b'Exif\0\0' + encoded((16, 16))
ODD: dict[str, Callable[[Size], File]] = {
    'grayscale': lambda size: File(encoded(size, 'L'), size),
    'CMYK': lambda size: File(encoded(size, 'CMYK'), size),
    '16 bit': lambda size: File(deep(size), size),
    'PNG named .jpg': lambda size: File(encoded(size, kind='PNG'), size),
    'alpha': lambda size: File(encoded(size, 'RGBA', 'PNG'), size),
    'palette': lambda size: File(encoded(size, 'P', 'PNG'), size),
    'WebP named .jpg': lambda size: File(encoded(size, kind='WEBP'), size),
    'progressive': lambda size: File(encoded(size, progressive=True), size),
    'thumbnail': lambda size: File(encoded(size, exif=THUMBNAIL), size),
    'bytes behind the end': lambda size: File(encoded(size) + b'<!-- -->' * 40, size),
    'EXIF rotation, annotated as stored': lambda size: File(turned(size), size),
    'EXIF rotation, annotated as shown': lambda size: File(turned(size), size[::-1]),
}
MISSING, EMPTY, TRUNCATED, NO_IMAGE = (
    f'the file is {what}' for what in ('missing', 'empty', 'truncated', 'not an image')
)


def damaged(kind: str) -> str:
    return f'the file begins as a {kind} image but cannot be decoded: it is damaged, or of a rare kind'


def other(stored: Size, annotated: Size) -> str:
    return (
        f'the image is {stored[0]} x {stored[1]} pixels (width x height), '
        f'its annotation says {annotated[0]} x {annotated[1]}'
    )


BAD: dict[str, Callable[[Size, float], File]] = {  # the number in [0, 1) says where a file is cut
    'missing': lambda size, at: File(None, size, MISSING),
    'zero-byte': lambda size, at: File(b'', size, EMPTY),
    'truncated JPEG': lambda size, at: File(cut(encoded(size), at), size, TRUNCATED),
    'truncated progressive': lambda size, at: File(cut(encoded(size, progressive=True), at), size, TRUNCATED),
    'truncated, with thumbnail': lambda size, at: File(
        cut(encoded(size, exif=THUMBNAIL), 0.5 + at / 2), size, TRUNCATED
    ),
    'truncated PNG': lambda size, at: File(cut(encoded(size, kind='PNG'), at), size, TRUNCATED),
    'truncated WebP': lambda size, at: File(cut(encoded(size, kind='WEBP'), at), size, damaged('WebP')),
    'text': lambda size, at: File(b'sorry, not found', size, f'{NO_IMAGE} that OpenCV reads: it is text'),
    'zeros': lambda size, at: File(
        bytes(500), size, f'{NO_IMAGE} that OpenCV reads: it is empty, or begins with zeros'
    ),
    'corrupt PNG': lambda size, at: File(corrupt(size), size, damaged('PNG')),
    'other size': lambda size, at: File(encoded((32, 24)), size, other((32, 24), size)),
    'EXIF rotation, other size': lambda size, at: File(turned((32, 24)), size, other((32, 24), size)),
    'huge': lambda size, at: File(bomb(HUGE), size, other(HUGE, size)),
    'huge, annotated so': lambda size, at: File(
        bomb(HUGE),
        HUGE,
        'the file cannot be decoded: it has more pixels than OPENCV_IO_MAX_IMAGE_PIXELS allows '
        '(2^30 when unset)',
    ),
}


def cut(data: bytes, share: float) -> bytes:
    """A beginning of a file: at least what tells its format, at most all but the last 13 bytes."""
    return data[: 12 + int((len(data) - 25) * share)]


# Boxes: of an image w x h and a generator, what is planted and what is left of it


def inside(w: int, h: int, rng: np.random.Generator) -> Bounds:
    """xyxy, whole numbers, at least 4 pixels wide and high and 4 away from every side."""
    x1, y1 = rng.integers(4, w - 12), rng.integers(4, h - 12)
    return float(x1), float(y1), float(rng.integers(x1 + 4, w - 4)), float(rng.integers(y1 + 4, h - 4))


def xywh(x1: float, y1: float, x2: float, y2: float) -> Box:
    return x1, y1, x2 - x1, y2 - y1


GOOD: list[Callable[[int, int, Bounds], tuple[Box, Bounds]]] = [
    lambda w, h, b: (xywh(*b), b),
    lambda w, h, b: ((0, 0, w, h), (0, 0, w, h)),
    lambda w, h, b: ((b[0] + 0.25, b[1] + 0.5, 1, 1), (b[0] + 0.25, b[1] + 0.5, b[0] + 1.25, b[1] + 1.5)),
    lambda w, h, b: ((w - 1, h - 1, 1, 1), (w - 1, h - 1, w, h)),
    lambda w, h, b: ((b[0], b[1], w - b[0] + 0.005, h - b[1]), (b[0], b[1], w, h)),  # rounding is no fault
]
CLIPPED: list[Callable[[int, int, Bounds], tuple[Box, Bounds]]] = [
    lambda w, h, b: (xywh(-7, *b[1:]), (0, *b[1:])),
    lambda w, h, b: (xywh(b[0], -0.5, b[2], b[3]), (b[0], 0, b[2], b[3])),
    lambda w, h, b: (xywh(b[0], b[1], w + 3.5, b[3]), (b[0], b[1], w, b[3])),
    lambda w, h, b: (xywh(b[0], b[1], b[2], h + 1000), (b[0], b[1], b[2], h)),
    lambda w, h, b: ((-w, -h, 3 * w, 3 * h), (0, 0, w, h)),
    lambda w, h, b: ((b[0], b[1], 1e308, 1e308), (b[0], b[1], w, h)),
]
DROPPED: dict[str, list[Callable[[int, int, Bounds], Box]]] = {
    'not_finite': [
        lambda w, h, b: (NAN, b[1], 9, 9),
        lambda w, h, b: (b[0], NAN, 9, 9),
        lambda w, h, b: (b[0], b[1], NAN, 9),
        lambda w, h, b: (NAN, NAN, NAN, NAN),
        lambda w, h, b: (b[0], b[1], INF, 9),
        lambda w, h, b: (-INF, b[1], INF, 9),
        lambda w, h, b: (b[0], None, 9, 9),  # how strict JSON writes NaN
    ],
    'too_small': [
        lambda w, h, b: (b[0], b[1], 0.5, 9),
        lambda w, h, b: (b[0], b[1], 9, 0.999),
        lambda w, h, b: (b[0], b[1], 0, 9),  # without area
        lambda w, h, b: (b[0], b[1], 0, 0),
        lambda w, h, b: (b[0], b[1], -3, 9),  # negative
        lambda w, h, b: (b[0], b[1], 9, -2),
        lambda w, h, b: (w - 0.5, b[1], 20, 9),  # of which half a pixel is seen
        lambda w, h, b: (b[0], -8.5, 9, 9),
    ],
    'outside': [
        lambda w, h, b: (-30, b[1], 20, 9),
        lambda w, h, b: (b[0], -30, 9, 30),  # touches the upper edge
        lambda w, h, b: (w, b[1], 9, 9),
        lambda w, h, b: (b[0], h + 0.5, 9, 9),
        lambda w, h, b: (1e9, -1e9, 9, 9),
        lambda w, h, b: (1e308, 1e308, 1e308, 1e308),
    ],
}


def plant_box(kind: str, size: Size, number: int, rng: np.random.Generator) -> tuple[Box, Bounds | None, str]:
    """The box, what is left of it, and the reason ('' for a good one); `number` chooses the variant."""
    w, h = size
    within = inside(w, h, rng)
    left: Bounds | None = None
    if kind in DROPPED:
        box = DROPPED[kind][number % len(DROPPED[kind])](w, h, within)
    else:
        variants = CLIPPED if kind == 'clipped' else GOOD
        box, left = variants[number % len(variants)](w, h, within)
    if kind == 'good':
        return box, left, ''
    sides = ', '.join(f'{NAN if side is None else side:g}' for side in box)
    return box, left, f'bbox [{sides}] {PHRASES[kind]} (x, y, width, height; the image is {w} x {h})'


# Splits

WITHOUT_BOXES = ('empty', 'crowds or ignored only', 'all boxes dropped')
FOLDERS = ('', 'sub/', 'a b/', 'é/', 'x..y/')  # '..' as a part of a name is none


def plant(root: Path, split: str, images: int, seed: int) -> Expected:
    """Write `root/annotations/SPLIT.json` and `root/SPLIT/`; three in eight files and half the boxes faulty.

    Faults take turns, so each kind occurs about equally often; where they are is drawn.
    """
    rng = np.random.default_rng([seed, images])
    ids = np.unique(rng.integers(0, 2**40, 2 * images))[:images]  # gaps
    img_ids: list[int] = rng.permutation(ids).tolist()
    ann_ids = iter(rng.permutation(40 * images).tolist())
    expected = Expected({}, {}, {}, {}, {}, dict.fromkeys(WITHOUT_BOXES, 0), 0, Counter())
    counts: Counter[str] = Counter()
    written: dict[tuple[str, Size], File] = {}
    listed, annotations = [], []
    for folder in FOLDERS:
        (root / split / folder).mkdir(parents=True, exist_ok=True)
    (root / 'annotations').mkdir(exist_ok=True)

    def next_of(what: str, choices: Any) -> Any:
        counts[what] += 1
        return list(choices)[counts[what] % len(choices)]

    def add(img_id: int, label: int, box: Box, crowd: bool = False) -> int:
        category = sorted(CATEGORIES)[label]
        entry = {'id': next(ann_ids), 'image_id': img_id, 'category_id': category, 'bbox': box}
        counts['annotations'] += 1
        if counts['annotations'] % 3:  # some tools write no area and no iscrowd
            entry |= {'area': 30.0, 'iscrowd': int(crowd)}
        elif crowd:
            entry['iscrowd'] = 1
        annotations.append(entry)
        return int(entry['id'])

    for place, img_id in enumerate(img_ids):
        size = SIZES[place % len(SIZES)]
        group = ('bad', 'odd', 'good')[int(np.searchsorted([0.375, 0.75], rng.random()))]
        if group == 'bad':
            kind = next_of('bad', BAD)
            file = BAD[kind](size, rng.random())
        else:
            kind = next_of('odd', ODD) if group == 'odd' else 'good'
            file = written.get((kind, size)) or (
                ODD[kind](size) if group == 'odd' else File(encoded(size), size)
            )
            written[kind, size] = file
            expected.odd[kind] += 1
        name = f'{FOLDERS[place % len(FOLDERS)]}{place}.jpg'
        path = root / split / name
        expected.images[img_id], expected.sizes[img_id] = path, file.size
        if file.content is not None and group == 'good' and place % 4 == 0:  # a link out of the folder
            (root / 'annotations' / f'{split}_{place}').write_bytes(file.content)
            path.symlink_to(root / 'annotations' / f'{split}_{place}')
        elif file.content is not None:
            path.write_bytes(file.content)
        if file.reason is not None:
            expected.bad[img_id] = file.reason
        w, h = file.size
        whole = float if place % 5 == 0 else int  # as some tools write it
        listed.append({'id': img_id, 'file_name': name, 'width': whole(w), 'height': whole(h)})

        content = str(rng.choice(['boxes', *WITHOUT_BOXES], p=[0.8, 0.07, 0.06, 0.07]))
        if content != 'boxes':
            expected.without_boxes[content] += 1
        kinds = {'empty': [], 'crowds or ignored only': [], 'all boxes dropped': list(DROPPED)}.get(
            content, ['good', 'clipped', *DROPPED]
        )
        left = []
        for number in range(0 if not kinds else int(rng.integers(2, 9))):
            kind = 'good' if number == 0 and content == 'boxes' else str(rng.choice(kinds))
            label = int(rng.integers(len(BY_ID)))
            box, bounds, reason = plant_box(kind, file.size, next_of(kind, range(840)), rng)
            ann_id = add(img_id, label, box)
            if bounds is not None:
                left.append((label, bounds))
            if reason:
                expected.faults[ann_id] = kind, img_id, reason
        crowds = int(content == 'crowds or ignored only') + int(content != 'empty' and rng.random() < 0.1)
        for _ in range(crowds):
            counts['crowds'] += 1
            add(img_id, int(rng.integers(len(BY_ID))), xywh(*inside(w, h, rng)), crowd=True)
        expected.boxes[img_id] = left
    shuffled = [annotations[i] for i in rng.permutation(len(annotations))]
    categories = [{'id': category, 'name': name} for category, name in CATEGORIES.items()]
    coco = {'images': listed, 'categories': categories, 'annotations': shuffled}
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(coco))
    return expected._replace(crowds=counts['crowds'])
