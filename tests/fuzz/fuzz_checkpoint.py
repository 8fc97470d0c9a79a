"""Fuzz the reader of checkpoints: python -m tests.fuzz.fuzz_checkpoint -max_total_time=60.

Where a mutated file is still a zip archive it is also read with its checksums mended, or nearly all inputs
would end at them.
"""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import torch
from torch import _weights_only_unpickler

from mmdet.checkpoint import io as checkpoint_io
from mmdet.checkpoint import safety
from tests.fuzz.harness import fuzz, one


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
    """The checksums of a zip archive's stored records, computed anew."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except Exception:  # no archive
        return content
    result = bytearray(content)
    for entry in entries:
        at = entry.header_offset
        if content[at : at + 4] != b'PK\3\4' or len(content) < at + 30:
            continue
        name, extra = struct.unpack_from('<HH', content, at + 26)
        start = at + 30 + name + extra
        checksum = struct.pack('<I', zlib.crc32(content[start : start + entry.compress_size]))
        result[at + 14 : at + 18] = checksum
        place = result.find(b'PK\1\2' + content[at + 4 : at + 6], 0)
        while place >= 0:
            if len(result) >= place + 46 and struct.unpack_from('<I', result, place + 42)[0] == at:
                result[place + 16 : place + 20] = checksum
            place = result.find(b'PK\1\2', place + 4)
    return bytes(result)


def seeds() -> list[bytes]:
    """Small checkpoints in both formats of torch."""
    state = {'a.weight': torch.ones(2, 2), 'b': torch.zeros(1, dtype=torch.int64)}
    contents = [
        {'state_dict': state, 'meta': {'epoch': 1, 'dataset_meta': {'classes': ['cat']}}},
        {'state_dict': state, 'optimizer': {'state': {0: {'momentum_buffer': torch.ones(2)}}}},
        state,
        {'meta': 'none'},
    ]
    files = []
    for content in contents:
        for new_format in (True, False):
            stream = io.BytesIO()
            torch.save(content, stream, _use_new_zipfile_serialization=new_format)
            files.append(stream.getvalue())
    return files


if __name__ == '__main__':
    fuzz(read, seeds(), '.pth', [checkpoint_io, safety, zipfile, _weights_only_unpickler])
