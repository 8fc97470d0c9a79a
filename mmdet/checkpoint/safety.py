"""What a checkpoint file says of itself, read before torch opens it.

torch does not compare the checksums that its files hold: a flipped bit is loaded as another weight. And its
weights-only reader calls more than weights need, among it `bytearray`, with which a file of a hundred bytes
takes all memory, and whatever an imported package has allowed. So every record is compared with its checksum,
and the pickle is followed once without making anything: it may name what `CALLED` and `ITEM_SIZES` list, and
no tensor may reach over its storage, no storage over its record.
"""

import io
import math
import os
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, ClassVar, NamedTuple

import torch

CHUNK = 1 << 20  # bytes that are read at once
ITEM_SIZES = {  # bytes of a number in each kind of storage
    'torch.BFloat16Storage': 2,
    'torch.BoolStorage': 1,
    'torch.ByteStorage': 1,
    'torch.CharStorage': 1,
    'torch.DoubleStorage': 8,
    'torch.FloatStorage': 4,
    'torch.HalfStorage': 2,
    'torch.IntStorage': 4,
    'torch.LongStorage': 8,
    'torch.ShortStorage': 2,
}
OPCODES = (
    'PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINSTRING '
    'EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS SETITEM SETITEMS '
    'BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL REDUCE BUILD BINPERSID'
)
OTHER_FORMATS = (  # place, bytes, what has them there
    (0, b'\xff\xd8\xff', 'a JPEG image'),
    (0, b'\x89PNG', 'a PNG image'),
    (0, b'\x1f\x8b', 'a gzip file, to be unpacked first'),
    (257, b'ustar', 'a tar archive'),
    (8, b'{"', 'a safetensors file'),
    (0, b'version https://git-lfs', 'the pointer of a git-lfs file, which `git lfs pull` fetches'),
    (0, b'<', 'a web page, perhaps of a download that failed'),
)


class PythonObjectError(ValueError):
    """A file holds something besides tensors, numbers, strings, lists and dicts."""


class TensorOutline(NamedTuple):
    """A tensor that was not made."""

    shape: tuple[int, ...]


class _Storage(NamedTuple):
    items: int


def read_outline(file: BinaryIO) -> Any:
    """Check a checkpoint and return what it holds, with a `TensorOutline` in the place of each tensor.

    The zip files that torch writes since 1.6 are compared with their checksums. Older files hold none: of
    them only the size of every record is checked.

    Raises:
        PythonObjectError: It holds other objects; says which.
        ValueError: It is damaged, of another format, or claims more than it holds.
    """
    head = file.read(512)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if head.startswith(b'PK\x03\x04'):
        return _outline_of_zip(file, size)
    if head.startswith(b'\x80'):
        return _outline_of_old_format(file, size)
    raise ValueError(f'it is {_name_format(head)}')


def check_records(file: BinaryIO) -> None:
    """Compare the records of a zip file with their checksums; another file passes.

    Raises:
        ValueError: A record is damaged.
    """
    if file.read(4) == b'PK\x03\x04':
        _read_records(file, file.seek(0, os.SEEK_END))


def _name_format(head: bytes) -> str:
    start = head.lstrip()
    for place, mark, name in OTHER_FORMATS:
        if (start if place == 0 else head)[place:].startswith(mark):
            return name
    if not any(head):
        return 'empty, or begins with zeros'
    return 'text' if head.isascii() and b'\0' not in head else 'of no known format'


def _outline_of_zip(file: BinaryIO, size: int) -> Any:
    folder, sizes, content = _read_records(file, size)
    reader = _OutlineReader(io.BytesIO(content), len(content))
    outline = reader.read()
    for key, (_, claimed) in reader.storages.items():
        found = sizes.get(f'{folder}/data/{key}')
        if found != claimed:
            raise ValueError(f'tensor record {key} should have {claimed:,} bytes; it has {found or 0:,}')
    return outline


def _read_records(file: BinaryIO, size: int) -> tuple[str, dict[str, int], bytes]:
    """The folder in a zip file, the size of each record in it, and its pickle; every record is read."""
    start = _start_of_directory(file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            if start != archive.start_dir:
                raise ValueError('its list of records is not where its end says')
            infos = archive.infolist()
            folder = infos[0].filename.partition('/')[0]
            if f'{folder}/constants.pkl' in archive.namelist():
                raise ValueError('it is a TorchScript program')
            # torch finds records by name without regard to case
            if len({info.filename.lower() for info in infos}) < len(infos):
                raise ValueError('two of its records have the same name')
            for info in infos:
                if not info.orig_filename.isascii() or info.orig_filename != info.filename:
                    raise ValueError(f'it has a record {info.orig_filename!r}')
                if info.external_attr & 0xFFFF or info.is_dir():  # torch reads nothing into its memory
                    raise ValueError(f'its record {info.filename} is a folder')
                if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                    raise ValueError(f'its record {info.filename} is compressed, which torch.save never does')
            sizes = {info.filename: info.file_size for info in infos}
            if sum(sizes.values()) > size:
                raise ValueError(f'its records claim {sum(sizes.values()):,} bytes')
            if f'{folder}/data.pkl' not in sizes:
                raise ValueError('it is a zip archive that torch.save has not written')
            for info in infos:
                with archive.open(info) as record:  # compares the checksum when it comes to the end
                    while record.read(CHUNK):
                        pass
            return folder, sizes, archive.read(f'{folder}/data.pkl')
    except (
        zipfile.BadZipFile,
        RuntimeError,
        NotImplementedError,
        EOFError,
        LookupError,
        struct.error,
    ) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _start_of_directory(file: BinaryIO, size: int) -> int:
    """Where the last bytes of a zip file say that its list of records begins.

    zipfile looks for the list elsewhere, too, and torch does not: both have to read the same one.
    """
    tail_size = min(size, 98)  # zip64 end record, its locator, end record
    file.seek(size - tail_size)
    tail = file.read(tail_size)
    if tail[-22:-18] != b'PK\x05\x06':
        raise ValueError('it is cut off, or followed by other bytes')
    if tail[-42:-38] != b'PK\x06\x07':
        return int(struct.unpack('<I', tail[-6:-2])[0])
    if struct.unpack('<Q', tail[-34:-26])[0] != size - 98:
        raise ValueError('its end record is not at the end')
    return int(struct.unpack('<Q', tail[-50:-42])[0])


def _outline_of_old_format(file: BinaryIO, size: int) -> Any:
    """Five pickles, then each storage: the number of its items, 8 bytes, and the items."""
    if _OutlineReader(file, size).read() != torch.serialization.MAGIC_NUMBER:
        raise ValueError('it is a pickle that torch.save has not written')
    for _ in range(2):  # version of the format, sizes of numbers
        _OutlineReader(file, size).read()
    reader = _OutlineReader(file, size)
    outline = reader.read()
    keys = _OutlineReader(file, size).read()
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(reader.storages):
        raise ValueError('its list of tensor records is not the one that its tensors name')
    for key in keys:
        items, claimed = reader.storages[key]
        if file.read(8) != struct.pack('<q', items):
            raise ValueError(f'tensor record {key} should have {claimed:,} bytes')
        if file.seek(claimed, os.SEEK_CUR) > size:
            raise ValueError(f'it ends within tensor record {key}')
    if file.tell() != size:
        raise ValueError(f'{size - file.tell():,} bytes follow its last record')
    return outline


class _Bounded:
    """A file that reserves no memory for more bytes than it has."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.readline = file.readline

    def read(self, count: int) -> bytes:
        return self.file.read(min(count, self.size - self.file.tell()))


class _OutlineReader(pickle._Unpickler):  # the one written in C reserves memory for what a file claims
    """Follows a pickle of torch.save and calls nothing but what stands in this module."""

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code[0]: pickle._Unpickler.dispatch[code[0]]
        for code in (getattr(pickle, name) for name in OPCODES.split())
    }

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(_Bounded(file, size), encoding='utf-8')
        self.storages: dict[str, tuple[int, int]] = {}  # key -> items, bytes

    def read(self) -> Any:
        """The outline.

        Raises:
            PythonObjectError: The pickle names something else.
            ValueError: It is damaged.
        """
        try:
            return self.load()
        except PythonObjectError:
            raise
        except Exception as error:  # a damaged pickle fails in any way
            raise ValueError(f'its pickle breaks off ({type(error).__name__}: {error})') from error

    def find_class(self, module: str, name: str) -> Any:
        """What stands here for a name."""
        known = CALLED.get(f'{module}.{name}') or ITEM_SIZES.get(f'{module}.{name}')
        if known is None:
            raise PythonObjectError(f'GLOBAL {module}.{name}')
        return known

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage: ('storage', bytes of an item, key, device, items); older files add None."""
        word, item_size, key, _, items, *view = pid
        if word != 'storage' or type(item_size) is not int or type(key) is not str or any(view):
            raise PythonObjectError(f'persistent id {word!r:.40}')
        claimed = (_count(items), items * item_size)
        if self.storages.setdefault(key, claimed)[1] != claimed[1]:
            raise ValueError(f'tensor record {key} has two sizes')
        return _Storage(items)

    def load_setitem(self) -> None:
        """One entry of a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1].update(_entries([(key, value)]))

    def load_setitems(self) -> None:
        """Several entries."""
        items = self.pop_mark()
        self.stack[-1].update(_entries(zip(items[::2], items[1::2], strict=True)))

    def load_build(self) -> None:
        """The attribute that `nn.Module.state_dict` gives its dict, and nothing else."""
        state = self.stack.pop()
        if type(self.stack[-1]) is not OrderedDict or state.keys() != {'_metadata'}:
            raise PythonObjectError('attributes of an object')

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.BUILD[0]] = load_build


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f'{value!r:.40} is no size')
    return value


def _entries(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Pairs as a dict; a key made of a million nested tuples would end the process."""
    entries = {}
    for key, value in pairs:
        if type(key) not in (str, int, float, bool, type(None)):
            raise PythonObjectError(f'a dict key that is a {type(key).__name__}')
        entries[key] = value
    return entries


def _tensor(
    storage: _Storage,
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool = False,
    hooks: Any = None,
) -> TensorOutline:
    """A tensor; one that repeats its numbers (stride 0) could claim any memory when it is copied."""
    assert type(storage) is _Storage
    last = offset + sum((_count(n) - 1) * _count(step) for n, step in zip(shape, stride, strict=True))
    numel = math.prod(shape)
    if numel and max(numel, _count(offset) + 1, last + 1) > storage.items:
        raise ValueError(f'a tensor of shape {shape} claims more than its record, {storage.items} numbers')
    if hooks:
        raise PythonObjectError('hooks of a tensor')
    return TensorOutline(shape)


def _parameter(data: TensorOutline, requires_grad: bool, hooks: Any) -> TensorOutline:
    assert type(data) is TensorOutline
    if hooks:
        raise PythonObjectError('hooks of a tensor')
    return data


def _ordered_dict(pairs: Iterable[tuple[Any, Any]] = ()) -> OrderedDict[Any, Any]:
    return OrderedDict(_entries(pairs))


def _counter(counts: dict[Any, Any]) -> Counter[Any]:
    assert type(counts) is dict
    return Counter(counts)


def _size(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_count(size) for size in sizes)


CALLED = {  # name in a pickle -> what stands here for it
    'collections.OrderedDict': _ordered_dict,
    'collections.Counter': _counter,  # in the schedule of many a classifier's file
    'torch.Size': _size,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
}
