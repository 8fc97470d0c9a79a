"""Fuzz the reader of annotation files: python -m tests.fuzz.fuzz_annotations -max_total_time=60.

Each input is read as it is, and once more as edits of a good file, or nearly all would end at the parser.
"""

import json
import logging
from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger

from mmdet.datasets import coco_format
from tests.fuzz.harness import fuzz, one
from tests.unit.datasets.test_coco_format import VALID, check, make, places

PLACES = places(VALID)
MODULES = (coco_format, json.decoder, json.scanner)
VALUES = (..., None, True, '', '../x', 'cat', [], {}, [1, 2, 3], [1, 2, 3, 1e400], -1, 0, 0.5, 2**53, 10**400)


def read(file: Path) -> None:
    """As it is, then as edits."""
    data = file.read_bytes()
    one(read_once, file)
    file.write_bytes(json.dumps(make(edits(data))).encode())
    read_once(file)


def read_once(file: Path) -> None:
    """What comes back must be fit to train on and to score."""
    one(coco_format.read_classes, file)
    check(coco_format.read_coco(file))


def edits(data: bytes) -> list[tuple[tuple[Any, ...], Any]]:
    """Three bytes an edit: where, what, and a number for what is one."""
    triples = [data[i : i + 3] for i in range(0, min(len(data), 15) - 2, 3)]
    return [
        (PLACES[where % len(PLACES)], VALUES[what] if what < len(VALUES) else (what - 128) * number / 16)
        for where, what, number in triples
    ]


if __name__ == '__main__':
    MMLogger.get_instance('fuzz').setLevel(logging.ERROR)
    whole = json.dumps(VALID).encode()
    fuzz(read, [whole, b'{}', b'[]', bytes(range(15))], '.json', MODULES)
