"""Read COCO annotation files: one reader for data sets, metrics and class names.

M images and B annotations in the order of the file · K classes
Errors are ValueErrors that name the file, the entry and the remedy.
"""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
import numpy as np
from mmengine.logging import print_log
from numpy.typing import NDArray

from mmdet.files import UNKNOWN, describe, suggest, suggest_converter
from mmdet.structures import NO_IMAGE

REMEDY = 'Choose another annotation file (`--cfg-options train_ann=... val_ann=...`) or mend this one.'
MAX_EXACT_INT = 2**53  # up to here a whole number that was written as a float is meant exactly
SHOWN = 200  # characters of what is wrong in a message

Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Side = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Flag = Literal[0, 1] | bool | None
Box = tuple[float | None, float | None, float | None, float | None]  # null is how strict JSON writes NaN
NOT_TEXT = re.compile('[\ud800-\udfff]')  # half of a surrogate pair, which JSON allows and UTF-8 does not
# No path inside a folder: empty, absolute or climbing, for both kinds of slashes, or no text.
BAD_NAME = re.compile(r'^$|^[/\\]|^.:|\0|(^|[/\\])\.\.([/\\]|$)|' + NOT_TEXT.pattern)
T = TypeVar('T')


# What msgspec takes from a file. It steps over all else (polygons are most of a file) and takes a tenth of
# the time of `json`. gc=False: millions of entries that hold only numbers are in no cycle.
class _Image(msgspec.Struct, gc=False):
    id: Integer
    file_name: str
    width: Side
    height: Side


class _Category(msgspec.Struct, gc=False):
    id: Integer
    name: str


class _Annotation(msgspec.Struct, gc=False):
    id: Integer
    image_id: Integer
    category_id: Integer
    bbox: Box
    area: float | None = None
    iscrowd: Flag = 0
    ignore: Flag = 0


class _Categories(msgspec.Struct):
    categories: list[_Category]


class _Content(_Categories):
    images: list[_Image]
    annotations: list[_Annotation] | None = None


class CocoFile(NamedTuple):
    """The checked content of an annotation file."""

    file: Path
    category_ids: dict[str, int]  # id of each category by its name, ordered by id
    img_ids: NDArray[np.int64]  # (M,)
    file_names: NDArray[np.bytes_]  # (M,) UTF-8
    sizes: NDArray[np.int64]  # (M, 2) (h, w) in pixels
    ann_ids: NDArray[np.int64]  # (B,)
    image_rows: NDArray[np.int64]  # (B,) in [0, M)
    category_rows: NDArray[np.int64]  # (B,) in [0, K)
    bboxes: NDArray[np.float64]  # (B, 4) xywh in pixels, as given; null is NaN
    areas: NDArray[np.float64]  # (B,) NaN where none is given
    crowd: NDArray[np.bool_]  # (B,) regions of many objects
    ignored: NDArray[np.bool_]  # (B,) what MMDetection does not train on either, and the metric scores
    has_annotations: bool  # COCO's test set comes without


def read_coco(file: str | Path, boxes_needed: bool = True) -> CocoFile:
    """Read and check a COCO annotation file.

    Args:
        file: JSON with images, categories and annotations.
        boxes_needed: Without it `annotations` may be absent, as in the files of COCO's test set.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not in COCO's format, or contradicts itself.
    """
    file = Path(file)
    content = _decode(file, _Content)
    if boxes_needed and content.annotations is None:
        raise ValueError(f"{file} has no list 'annotations'. {REMEDY}")
    annotations = content.annotations or []
    category_ids = _category_ids(content.categories, file)
    _check_images(content.images, file)
    _require_unique(annotations, 'id', 'annotations', file)
    img_ids = np.array([image.id for image in content.images], np.int64)
    ann_ids, image_of, category_of = (
        np.array([getattr(one, key) for one in annotations], np.int64)
        for key in ('id', 'image_id', 'category_id')
    )
    return CocoFile(
        file=file,
        category_ids=category_ids,
        img_ids=img_ids,
        file_names=np.array([image.file_name.encode() for image in content.images], np.bytes_),
        sizes=np.array([(image.height, image.width) for image in content.images], np.int64),
        ann_ids=ann_ids,
        image_rows=_rows(img_ids, image_of, 'image', ann_ids, file),
        category_rows=_rows(np.array([*category_ids.values()]), category_of, 'category', ann_ids, file),
        bboxes=np.array([one.bbox for one in annotations], np.float64).reshape(-1, 4),
        areas=np.array([one.area for one in annotations], np.float64),
        crowd=np.array([one.iscrowd for one in annotations], bool),
        ignored=np.array([one.ignore for one in annotations], bool),
        has_annotations=bool(annotations),
    )


def read_classes(file: str | Path) -> tuple[str, ...]:
    """Read the class names of a COCO annotation file, ordered by category id; other sections are skipped.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not JSON, no categories, or two of them with one id or one name.
    """
    return tuple(_category_ids(_decode(Path(file), _Categories).categories, Path(file)))


def _parse_float(text: str) -> float:
    """Parse 640.0, as some tools write whole numbers, as 640."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= MAX_EXACT_INT else value


def _decode(file: Path, kind: type[T]) -> T:
    """Decode a file; what msgspec refuses (NaN, 640.0, other encodings) is given to the standard library."""
    if other := suggest_converter(file):
        raise ValueError(f'{file} is not an annotation file: {other}')
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{file}: the annotation file is missing.{suggest(file)} Set data_root (`--data-root DIR`) and '
            'the file within it (`--cfg-options train_ann=annotations/... val_ann=...`).'
        ) from error
    with contextlib.suppress(ValueError, RecursionError):
        return msgspec.json.decode(data, type=kind)
    try:
        content = json.loads(data, parse_float=_parse_float)
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        reason = str(error).replace('`', "'") + _locate(content, str(error))
        raise ValueError(f'{file}: {reason}. {REMEDY}') from error
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, lists in lists without end
        what = describe(data)
        told = f', but {what}' if not data.lstrip().startswith((b'{', b'[')) and what != UNKNOWN else ''
        raise ValueError(f'{file} is not a JSON file{told}: {error}. {REMEDY}') from error


def _locate(content: Any, error: str) -> str:
    """Name the entry that msgspec refused, or what there is in place of a missing section."""
    place = re.search(r'\$\.(\w+)\[(\d+)\]', error)
    if place is not None:
        entry = content[place[1]][int(place[2])]
        return f' (id {entry.get("id")!r:.{SHOWN}})' if isinstance(entry, dict) else f' ({entry!r:.{SHOWN}})'
    keys = f'; its keys are {sorted(content)}'[:SHOWN] if isinstance(content, dict) else ''
    return f'{keys}. Other formats are converted by tools/misc/yolo2coco.py and tools/misc/voc2coco.py'


def _category_ids(categories: Sequence[_Category], file: Path) -> dict[str, int]:
    """Map the name of each category to its id, in the order of the ids."""
    _require_unique(categories, 'id', 'categories', file)
    _require_unique(categories, 'name', 'categories', file)
    id_of_name = {one.name: one.id for one in sorted(categories, key=lambda one: one.id)}
    if not id_of_name:
        raise ValueError(f"{file}: the list 'categories' is empty. {REMEDY}")
    if NOT_TEXT.search(''.join(id_of_name)):
        raise ValueError(f'{file}: the name of a category is not text: {[*id_of_name]}. {REMEDY}')
    return id_of_name


def _require_unique(entries: Sequence[Any], key: str, section: str, file: Path) -> None:
    twice = [value for value, n in Counter(getattr(entry, key) for entry in entries).items() if n > 1]
    if twice:
        raise ValueError(
            f"{file}: {len(twice)} {key}s occur more than once in '{section}', the first is {twice[0]!r}. "
            f'Every entry must have its own {key}.'
        )


def _check_images(images: Sequence[_Image], file: Path) -> None:
    _require_unique(images, 'id', 'images', file)
    if not images:
        raise ValueError(f'{file} lists no images. {REMEDY}')
    for image in images:
        if BAD_NAME.search(image.file_name):
            raise ValueError(
                f'{file}: image {image.id} has the file_name {image.file_name!r}; it must be a path inside '
                "the image folder, without '..'. Write it relative to that folder, and set the folder with "
                '`--cfg-options train_img=... val_img=...`.'
            )
        if image.id == NO_IMAGE:
            raise ValueError(
                f'{file}: an image has the id {NO_IMAGE}, which stands for no image; give it another one, '
                'also in its annotations.'
            )


def _rows(
    ids: NDArray[np.int64], wanted: NDArray[np.int64], kind: str, ann_ids: NDArray[np.int64], file: Path
) -> NDArray[np.int64]:
    """Find the row in `ids` of the image or category that each annotation refers to."""
    order = np.argsort(ids)
    rows = order[np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)]
    unknown = np.flatnonzero(ids[rows] != wanted)
    if len(unknown):
        raise ValueError(
            f'{file}: annotation {ann_ids[unknown[0]]} has {kind}_id {wanted[unknown[0]]}, which the file '
            f'does not list ({len(unknown)} such annotations). {REMEDY}'
        )
    return rows


def match_classes(coco: CocoFile, classes: Sequence[str] | None) -> tuple[str, ...]:
    """Check the names of the labels against an annotation file.

    Args:
        coco: From `read_coco`.
        classes: Names in the order of their labels. None: all categories, ordered by id.

    Raises:
        ValueError: They are not different names, or the file knows none of them.
    """
    if classes is None:
        return tuple(coco.category_ids)
    if isinstance(classes, str) or len(set(classes)) < len(classes):
        raise ValueError(f"metainfo['classes'] must be a list of different names, but is {classes!r}")
    missing = [name for name in classes if name not in coco.category_ids]
    if len(missing) == len(classes):
        raise ValueError(
            f'{coco.file}: no class in common. The file has {tuple(coco.category_ids)}, the config asks for '
            f'{tuple(classes)}. Take the names from the file, or another file. {REMEDY}'
        )
    if missing:
        print_log(f'{coco.file} knows no class {", ".join(missing)}; nothing will be labeled so.', 'current')
    return tuple(classes)
