"""The parts of COCO annotation files that every reader of them checks in the same way.

All errors are ValueErrors that name the file, the entry and the remedy.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

CHOOSE_OTHER = 'Choose another annotation file (`--cfg-options train_ann=... val_ann=...`) or mend this one.'
LARGEST_ID = 2**53  # up to here a whole number that was written as a float is meant exactly
KEYS_SHOWN = 10  # of a file that is something else


def read_columns(
    file: Path,
    needed: Mapping[str, Sequence[str]],
    optional: Mapping[str, Mapping[str, Any]],
    may_lack: Sequence[str] = (),
) -> dict[str, dict[str, list[Any]]]:
    """Section -> key -> the value of every entry.

    msgspec steps over what is not needed (polygons are most of a file) and takes a tenth of the time. What it
    refuses (NaN, a missing key, no JSON at all) is left to the standard library, to accept it or to say what
    is wrong.

    Args:
        file: Annotations.
        needed: Sections and the keys that each of their entries must have.
        optional: Further keys by section, and what is meant where an entry has none.
        may_lack: Sections that may be absent, and are then absent from what is returned.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No JSON, or a section or a key is not there.
    """
    keys = {section: (*names, *optional.get(section, ())) for section, names in needed.items()}
    fields = tuple((section, tuple(names)) for section, names in needed.items())
    defaults = tuple((section, tuple(more.items())) for section, more in optional.items())
    try:
        content = msgspec.json.decode(file.read_bytes(), type=_contents(fields, defaults, tuple(may_lack)))
    except (OSError, ValueError, RecursionError):
        parsed = load(file)
        return {
            section: {key: column(parsed, section, key, file, optional.get(section)) for key in names}
            for section, names in keys.items()
            if section in parsed or section not in may_lack
        }
    return {
        section: {key: [getattr(entry, key) for entry in entries] for key in names}
        for section, names in keys.items()
        if (entries := getattr(content, section)) is not None
    }


@cache
def _contents(
    needed: tuple[tuple[str, tuple[str, ...]], ...],
    optional: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...],
    may_lack: tuple[str, ...],
) -> type[msgspec.Struct]:
    """What msgspec takes from a file."""
    sections: list[Any] = []
    for section, keys in needed:
        # gc=False: millions of entries that hold numbers and lists of numbers are in no cycle
        more = [(key, Any, default) for key, default in dict(optional).get(section, ())]
        entry: Any = msgspec.defstruct(section, [*keys, *more], gc=False)
        sections.append((section, list[entry], None if section in may_lack else msgspec.NODEFAULT))
    return msgspec.defstruct('Contents', sections)


def load(file: Path) -> dict[str, Any]:
    """The whole content of a file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no JSON object.
    """
    try:
        with file.open('rb') as stream:
            content = json.load(stream)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{file}: the annotation file is missing. Set data_root (`--data-root DIR`) and the file within '
            'it (`--cfg-options train_ann=annotations/... val_ann=...`).'
        ) from error
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, lists in lists without end
        raise ValueError(f'{file} is not a JSON file: {error}. {CHOOSE_OTHER}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{file} holds a JSON {type(content).__name__}, not a COCO data set. {CHOOSE_OTHER}')
    return content


def column(
    content: dict[str, Any], section: str, key: str, file: Path, optional: Mapping[str, Any] | None = None
) -> list[Any]:
    """One value of every entry of a section; `optional`: keys that may be absent, and what is meant then."""
    if not isinstance(content.get(section), list):
        keys = sorted(content)
        more = f' and {len(keys) - KEYS_SHOWN} more' if len(keys) > KEYS_SHOWN else ''
        raise ValueError(
            f"{file} has no list '{section}'; its keys are {keys[:KEYS_SHOWN]}{more}. {CHOOSE_OTHER} "
            "Folders in Pascal VOC's format are converted by tools/misc/voc2coco.py."
        )
    optional = optional or {}
    entries = content[section]
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or (key not in entry and key not in optional):
            name = f' (id {entry["id"]})' if isinstance(entry, dict) and 'id' in entry else ''
            raise ValueError(f"{file}: entry {number}{name} of '{section}' has no '{key}'. {CHOOSE_OTHER}")
    return [entry.get(key, optional.get(key)) for entry in entries]


def whole_numbers(values: list[Any], key: str, file: Path) -> NDArray[np.int64]:
    """Ids, widths and heights: integers, also those that were written as 640.0."""
    try:
        array = np.array(values if values else np.zeros(0, np.int64))
    except ValueError:  # lists of different lengths among them
        array = np.array(None)
    if array.dtype.kind == 'f' and (np.abs(array) <= LARGEST_ID).all() and (array == np.rint(array)).all():
        array = array.astype(np.int64)  # 640.0, as some tools write it
    if array.dtype.kind != 'i' or array.ndim != 1:
        wrong = next((value for value in values if not _is_whole(value)), values[0])
        raise ValueError(f"{file}: '{key}' must be a whole number, but one is {wrong!r}. {CHOOSE_OTHER}")
    return array.astype(np.int64)


def _is_whole(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer() and abs(value) <= LARGEST_ID
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def unique_ids(values: list[Any], section: str, file: Path) -> NDArray[np.int64]:
    """The ids of a section, each of which occurs once."""
    ids = whole_numbers(values, f'id of {section}', file)
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        twice = unique[counts > 1]
        raise ValueError(
            f"{file}: {len(twice)} ids occur more than once in '{section}', the first is {twice[0]}. Give "
            'every entry an id of its own.'
        )
    return ids


def class_names(ids: NDArray[np.int64], names: list[Any], file: Path) -> dict[str, int]:
    """The id of each category by its name, in the order of the ids."""
    for name in names:
        if not isinstance(name, str) or not is_text(name):
            raise ValueError(f'{file}: a category has the name {name!r}, which is not text. {CHOOSE_OTHER}')
    name, count = max(Counter(names).items(), key=lambda item: item[1], default=('', 0))
    if count > 1:
        same = [int(i) for i, other in zip(ids, names, strict=True) if other == name]
        raise ValueError(f'{file}: the categories {same} have the same name {name!r}. Rename all but one.')
    return {names[i]: int(ids[i]) for i in np.argsort(ids)}


def boxes_xywh(values: list[Any], ann_ids: list[Any] | NDArray[np.int64], file: Path) -> NDArray[np.float64]:
    """Boxes as the file gives them: xywh (B, 4); null, as strict JSON writes NaN, is NaN."""
    try:
        return np.array(values, np.float64).reshape(len(values), 4)
    except (ValueError, TypeError, OverflowError):
        for ann_id, value in zip(ann_ids, values, strict=True):
            numbers = isinstance(value, list) and all(side is None or is_number(side) for side in value)
            if not numbers or len(value) != 4:
                raise ValueError(
                    f'{file}: annotation {ann_id} has the bbox {value!r}, not four numbers x, y, width, '
                    f'height. {CHOOSE_OTHER}'
                ) from None
        raise


def is_number(side: Any) -> bool:
    """Whether a value is a number that fits into a float."""
    return isinstance(side, float) or (isinstance(side, int) and abs(side) <= sys.float_info.max)


def is_text(name: str) -> bool:
    """Whether a name can be written in UTF-8; half of a surrogate pair, which JSON allows, cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
