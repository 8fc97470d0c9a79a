"""Fuzz the reader of checkpoints: python -m tests.fuzz.fuzz_checkpoint -max_total_time=60.

Where a mutated file is still a zip archive it is also read with true checksums, or nearly all inputs would
end at them.
"""

import io
import zipfile
from argparse import Namespace
from pathlib import Path

import safetensors.torch
import torch
from torch import _weights_only_unpickler

from mmdet.checkpoint import io as checkpoint_io
from mmdet.checkpoint import safety
from tests.fuzz.harness import fuzz, one
from tests.unit.checkpoint.test_safety import CONTENT, saved, zipped


def read(file: Path) -> None:
    """Once as it is, once with its checksums mended."""
    one(read_once, file)
    file.write_bytes(mended(file.read_bytes()))
    read_once(file)


def read_once(file: Path) -> None:
    """What comes back must be weights."""
    found = checkpoint_io.load_checkpoint(file)
    assert all(isinstance(value, torch.Tensor) for value in found['state_dict'].values())


def mended(content: bytes) -> bytes:
    """The records of a zip archive, written anew with true checksums."""
    records = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                with archive.open(info) as record:
                    record._expected_crc = None  # type: ignore[attr-defined]
                    records[info.filename.partition('/')[2]] = record.read()
    except Exception:  # no archive
        return content
    return zipped(records)


def seeds() -> list[bytes]:
    """Small checkpoints in both formats of torch."""
    state = {'a.weight': torch.ones(2, 2), 'b': torch.zeros(1, dtype=torch.int64)}
    meta = {'epoch': 1, 'dataset_meta': {'classes': ['cat']}}
    foreign = {'model': state, 'args': Namespace(lr=0.1)}
    contents = [CONTENT, {'state_dict': state, 'meta': meta}, state, foreign, {'meta': 'none'}]
    return [safetensors.torch.save(state)] + [
        saved(content, new) for content in contents for new in (True, False)
    ]


if __name__ == '__main__':
    fuzz(read, seeds(), '.pth', [checkpoint_io, safety, zipfile, _weights_only_unpickler])
