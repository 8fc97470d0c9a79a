"""Check a checkpoint file before torch opens it.

`weights_only=True` of torch runs no code, but alone it is not enough (tried with 2.6 and 2.14). It compares
no checksum: a flipped bit loads as another weight. It calls more than weights need, among it `bytearray` and
`torch.Tensor(1 << 40)`, with which a file of a hundred bytes takes all memory, and whatever an imported
package has allowed. 2.6 reads beyond a record whose size is false. And it hashes whatever a file uses as a
key of a dict: a million nested tuples end the process with a segmentation fault.
"""

import math
import mmap
import pickletools
import zipfile
from collections import OrderedDict
from typing import Any, BinaryIO

from mmdet.files import HEAD, describe

LEGACY_HEAD = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # how files from before torch 1.6 begin
ITEM_SIZES = {  # bytes of a number in each kind of storage
    'torch BFloat16Storage': 2,
    'torch BoolStorage': 1,
    'torch ByteStorage': 1,
    'torch CharStorage': 1,
    'torch DoubleStorage': 8,
    'torch FloatStorage': 4,
    'torch HalfStorage': 2,
    'torch IntStorage': 4,
    'torch LongStorage': 8,
    'torch ShortStorage': 2,
}
FUNCTIONS = (
    'argparse Namespace',  # the settings of a training script; torch reads a dict in its place, see `io`
    'collections OrderedDict',
    'collections Counter',  # in the schedule of many a classifier's file
    'torch Size',
    'torch._utils _rebuild_parameter',
    'torch._utils _rebuild_tensor',
    'torch._utils _rebuild_tensor_v2',
)
OPCODES = (  # the instructions that `torch.save` writes, by the number of values that they take off the stack
    (
        'PROTO MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINSTRING '
        'EMPTY_DICT EMPTY_LIST EMPTY_TUPLE BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL '
        'TUPLE APPENDS SETITEMS'  # these take all down to a mark
    ),
    'TUPLE1 APPEND BUILD BINPERSID STOP',
    'TUPLE2 SETITEM REDUCE NEWOBJ',
    'TUPLE3',
)
TAKEN = {name: number for number, names in enumerate(OPCODES) for name in names.split()}


class PythonObjectError(ValueError):
    """A file holds something besides tensors, numbers, strings, lists and dicts."""


def check_file(file: BinaryIO, trust: bool = False) -> None:
    """Check that a checkpoint is whole and holds nothing but tensors and plain values.

    The zip files that torch writes since 1.6 are compared with their checksums. Older files hold none: of
    them only the sizes are checked.

    Args:
        file: At its beginning; is left anywhere.
        trust: It may hold any object: compare the checksums alone.

    Raises:
        PythonObjectError: It holds other objects; says which.
        ValueError: It is damaged, of another format, or claims more than it holds. A damaged file may also
            raise what zipfile and operations on values of the wrong type raise.
    """
    head = file.read(HEAD)
    size = file.seek(0, 2)
    if head.startswith(b'PK\x03\x04'):
        _check_zip(file, size, trust)
    elif not trust:
        if not head.startswith(LEGACY_HEAD):
            raise ValueError(f'it is {describe(head)}')
        _check_legacy(file, size)


def _check_zip(file: BinaryIO, size: int, trust: bool) -> None:
    """Check places, names, sizes and checksums of the records, then the pickle."""
    file.seek(max(size - 98, 0))
    tail = file.read()  # ends with the end record (22 bytes); zip64's locator (20) and record (56) before it
    if tail[-22:-18] != b'PK\x05\x06':
        raise ValueError('it is cut off, or followed by other bytes')
    with zipfile.ZipFile(file) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        folder = next(iter(sizes)).partition('/')[0]
        # zipfile finds a list of records elsewhere, too; torch reads the one that the end names
        start, at_record = (number.to_bytes(8, 'little') for number in (archive.start_dir, size - 98))
        moved = tail[-6:-2] != min(archive.start_dir, 0xFFFFFFFF).to_bytes(4, 'little') or (
            tail[-42:-38] == b'PK\x06\x07'
            and (tail[:4] + tail[48:56] + tail[64:72] != b'PK\x06\x06' + start + at_record)
        )
        reasons = {
            'it is a TorchScript program': f'{folder}/constants.pkl' in sizes,
            'it is a zip archive that torch.save has not written': f'{folder}/data.pkl' not in sizes,
            'its list of records is not where its end says': moved,
            'its records are compressed, or folders; those of torch.save never are': not all(
                map(_is_plain, archive.infolist())
            ),
            'two of its records have the same name': (  # to torch, which ignores case
                len({name.lower() for name in sizes}) < len(archive.infolist())
            ),
            'its records claim more bytes than it has': sum(sizes.values()) > size,
        }
        for reason, applies in reasons.items():
            if applies:
                raise ValueError(reason)
        if damaged := archive.testzip():
            raise ValueError(f'Bad CRC-32 (checksum) of its record {damaged}')
        content = archive.read(f'{folder}/data.pkl')
    storages: dict[str, int] = {}
    if not trust:
        _follow_pickle(content, storages)
    for key, claimed in storages.items():
        if (found := sizes.get(f'{folder}/data/{key}', 0)) != claimed:
            raise ValueError(f'tensor record {key} should have {claimed:,} bytes; it has {found:,}')


class _Settings:
    """Stands for an `argparse.Namespace`."""


def _is_plain(info: zipfile.ZipInfo) -> bool:
    """Tell whether torch reads a record as zipfile does; of one marked as a folder it reads nothing."""
    return (
        info.compress_type == zipfile.ZIP_STORED
        and info.file_size == info.compress_size
        and info.filename == info.orig_filename
        and info.filename.isascii()
        and not info.is_dir()
        and not info.external_attr & 0xFFFF
    )


def _check_legacy(file: BinaryIO, size: int) -> None:
    """Check five pickles and the sizes of the storages behind them, each 8 bytes (its count) and numbers."""
    storages: dict[str, int] = {}
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:  # reads no more than there is
        # magic number, version, sizes of C types, the checkpoint, keys of its storages
        keys = [_follow_pickle(stream, storages) for _ in range(5)][-1]
        end = stream.tell() + sum(8 + claimed for claimed in storages.values())
    if sorted(_check_keys(keys)) != sorted(storages) or end != size:
        raise ValueError(f'its {len(storages)} tensor records should end at byte {end:,}')


def _follow_pickle(stream: Any, storages: dict[str, int]) -> Any:
    """Follow the instructions of a pickle without calling anything.

    What it makes may be nested deeply and hold one value in many places: it is never hashed, compared or
    printed as a whole, since that could take for ever.

    Args:
        stream: At the beginning of the pickle; is left behind it.
        storages: The bytes that each storage claims are put in here by its key.

    Returns:
        What the pickle makes: dicts with None for each value, None for tensors, counts for storages.

    Raises:
        PythonObjectError: It has other instructions, calls other functions, or sets attributes.
        ValueError: It claims what it does not have. Where it is damaged LookupError, TypeError, ... come out.
    """
    stack: list[Any] = []
    outer: list[list[Any]] = []
    memo: dict[Any, Any] = {}
    for opcode, value, _ in pickletools.genops(stream):
        if opcode.name not in TAKEN or (opcode.name == 'GLOBAL' and value not in {*FUNCTIONS, *ITEM_SIZES}):
            raise PythonObjectError(f'{opcode.name} {str(value).replace(" ", ".")}')
        if pickletools.markobject in opcode.stack_before:
            taken, stack = stack, outer.pop()
        else:
            taken = [stack.pop() for _ in range(TAKEN[opcode.name])][::-1]
        match opcode.name:
            case 'MARK':
                outer.append(stack)
                stack = []
            case 'BINPUT' | 'LONG_BINPUT':
                memo[value] = stack[-1]
            case 'BINGET' | 'LONG_BINGET':
                stack.append(memo[value])
            case 'EMPTY_TUPLE' | 'TUPLE' | 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                stack.append(tuple(taken))
            case 'APPEND' | 'APPENDS':
                stack[-1].extend(taken)
            case 'SETITEM' | 'SETITEMS':
                stack[-1].update(_check_keys(taken[::2]))
            case 'BUILD':
                _check_state(stack[-1], taken[0])
            case 'REDUCE' | 'NEWOBJ':
                stack.append(_call(*taken))
            case 'BINPERSID':
                stack.append(_claim_storage(storages, *taken[0]))
            case 'STOP':
                break
            case _ if opcode.stack_after and not opcode.stack_before:
                stack.append({'EMPTY_LIST': [], 'EMPTY_DICT': {}}.get(opcode.name, value))
    return taken[0]


def _check_state(value: Any, state: Any) -> None:
    """Refuse to set attributes, but for the metadata of a state dict and the entries of settings."""
    if not (
        (type(value) is OrderedDict and state.keys() == {'_metadata'})
        or (type(value) is _Settings and type(state) is dict)
    ):
        raise PythonObjectError('attributes of an object')


def _check_keys(keys: list[Any]) -> dict[Any, None]:
    """Make a dict with these keys, after making sure that hashing them costs nothing."""
    if not {type(key) for key in keys} <= {str, int, float, bool, type(None)}:
        raise PythonObjectError('a dict key that is neither a string nor a number')
    return dict.fromkeys(keys)


def _claim_storage(
    storages: dict[str, int], word: Any, kind: str, key: str, device: Any, items: int, view: None = None
) -> int:
    """Note the bytes of a storage, and return the count of its numbers."""
    if (
        (word, view, type(kind), type(key), type(items)) != ('storage', None, str, str, int)
        or items < 0
        or storages.setdefault(key, items * ITEM_SIZES[kind]) != items * ITEM_SIZES[kind]
    ):
        raise ValueError('it names something that is no storage of a tensor, or one storage with two sizes')
    return items


def _call(function: str, args: Any) -> Any:
    """Return what stands for the result of a call, after checking its arguments."""
    match function:
        case 'collections OrderedDict':
            return OrderedDict(_check_keys([pair[0] for pairs in args for pair in pairs]))
        case 'collections Counter' if all(type(counts) is dict for counts in args):
            return {}
        case 'argparse Namespace' if args == ():
            return _Settings()
        case 'torch Size':
            return tuple(*args)
        case 'torch._utils _rebuild_parameter':
            return None
        case 'torch._utils _rebuild_tensor' | 'torch._utils _rebuild_tensor_v2':
            items, offset, shape, stride, *_ = args
            # torch allows stride 0, which takes any memory when the tensor is copied; 64 dimensions at most
            if (
                not all(type(number) is int and number >= 0 for number in (offset, *shape, *stride))
                or len(shape) > 64
                or math.prod(shape) > items
            ):
                raise ValueError('a tensor claims more numbers than its record has')
            return None
    raise PythonObjectError('a call of something else')
