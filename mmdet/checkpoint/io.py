"""Read and write checkpoint files: tensors, numbers, strings, lists and dicts, and nothing else.

Writing replaces a file as a whole. Reading never runs code from it, and notices damage, see `safety`.
"""

import contextlib
import os
import secrets
import shlex
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from mmdet.checkpoint.safety import PythonObjectError, check_file
from mmdet.files import HEAD, describe, suggest

STATE_KEYS = ('state_dict', 'model_ema', 'model')  # under which weights are found, the first of them
WRAPPERS = ('module.', '_orig_mod.', 'model.')  # of DataParallel and averages, torch.compile, Lightning
SHOWN = 6  # names that an error message lists before it only counts


def to_serializable(value: Any, place: str = 'checkpoint') -> Any:
    """Copy a value into tensors on the CPU, numbers, strings, lists and dicts.

    Tuples become lists, NumPy values tensors and numbers, paths strings.

    Args:
        value: Anything made of these.
        place: What the value is called in an error message.

    Raises:
        TypeError: Something else is inside; names the place.
    """
    match value:
        case Tensor():
            repeats = value.numel() > value.untyped_storage().nbytes() // value.element_size()
            return value.detach().cpu().contiguous() if repeats else value.detach().cpu()
        case Mapping():
            return {
                to_serializable(key, place): to_serializable(item, f'{place}[{key!r}]')
                for key, item in value.items()
            }
        case list() | tuple():
            return [to_serializable(item, f'{place}[{i}]') for i, item in enumerate(value)]
        case np.ndarray():
            return torch.from_numpy(value.copy())
        case np.generic():
            return value.item()
        case os.PathLike():
            return str(value)
        case _ if value is None or type(value) in (bool, int, float, str):
            return value
    raise TypeError(
        f'{place} is a {type(value).__name__}; a checkpoint holds tensors, numbers, strings, lists and '
        'dicts only'
    )


def save_checkpoint(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Write a checkpoint atomically: at every moment `path` is the old file or the whole new one.

    Args:
        checkpoint: What `to_serializable` accepts.
        path: Its folder must exist.

    Raises:
        OSError: It cannot be written: names the file, the free space and the remedy.
    """
    content = to_serializable(checkpoint)
    atomic_write(path, lambda file: torch.save(content, file))


def atomic_write(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file atomically: at every moment `path` is the old file or the whole new one.

    Args:
        path: Its folder must exist.
        write: Fills the file that it is given.

    Raises:
        OSError: As `save_checkpoint`; no part of the new file is left.
    """
    path = Path(path)
    new = path.with_name(f'.{path.name}.{secrets.token_hex(4)}.tmp')
    try:
        with new.open('xb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            new.unlink()
        cause: BaseException | None = error  # where a write fails torch.save raises its own error in between
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        if cause is None:
            raise
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        free = shutil.disk_usage(folder).free / 1e6
        raise OSError(
            f'{path} cannot be written: {cause.strerror or cause}; {free:,.1f} MB is free there. Files that '
            'were written before are whole. Make room or choose another folder (training: --work-dir DIR; '
            '--cfg-options default_hooks.checkpoint.max_keep_ckpts=3 keeps fewer) and start again; a '
            'training goes on with --resume.'
        ) from error


def check_writable(folder: str | Path) -> None:
    """Make a folder for the results of a run, and a file in it for a moment.

    Raises:
        OSError: Names the folder and the remedy.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b'full?')
    except OSError as error:
        raise OSError(
            f'the work dir {folder} cannot be written: {error.strerror}. Choose another with --work-dir DIR.'
        ) from error


def update_symlink(link: Path, target: Path) -> None:
    """Point a symbolic link to another file beside it, atomically; where links cannot be made, copy it.

    Raises:
        OSError: Neither can be written.
    """
    new = link.with_name(f'.{link.name}.{secrets.token_hex(4)}.tmp')
    try:
        new.symlink_to(target.name)
    except OSError:
        atomic_write(link, lambda file: file.write(target.read_bytes()))
        return
    new.replace(link)
    _sync_folder(link.parent)


def remove_temp_files(folder: str | Path) -> None:
    """Remove the temporary files of writers that were killed; no writer may be at work in this folder."""
    for file in Path(folder).glob('.*.tmp'):
        file.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk, so that a rename survives a power cut."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folder
        return
    os.fsync(handle)
    os.close(handle)


def load_checkpoint(path: str | Path, trust: bool = False) -> dict[str, Any]:
    """Load a checkpoint safely: ours, MMDetection's, a classifier's, a bare state dict, safetensors.

    The weights are a dict of tensors: the whole file, or what it holds under one of `STATE_KEYS` or any other
    key. A damaged file is noticed by its checksums. Files in the format before torch 1.6 and safetensors hold
    none: there only what changes the size or the structure is noticed, a flipped bit of a weight is not.
    Weights that are not finite are loaded, with a warning.

    Args:
        path: The file.
        trust: Unpickle whatever it holds, with a warning. That runs code from the file.

    Returns:
        A dict with `state_dict` (tensors on the CPU, names without the prefixes in `WRAPPERS`), `meta` (a
        dict, perhaps empty) and whatever else the file holds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, holds no weights, or holds Python objects.
    """
    path = Path(path)
    with _open(path) as file:
        if trust:
            warnings.warn(f'{path} is trusted: code inside it runs', stacklevel=2)
        try:
            content = _read(file, trust)
        except PythonObjectError as error:
            target = path.with_name(f'{path.stem}_plain.pth')
            raise ValueError(
                f'{path} holds Python objects ({error}) besides tensors, numbers, strings, lists and dicts; '
                'it is not read, since that could run code from it.\n  If you trust where it came from, keep '
                f'its weights: python -m mmdet publish-model --trust-checkpoint {shlex.quote(str(path))} '
                f'{shlex.quote(str(target))}\n  or give --trust-checkpoint to tools/train.py, tools/test.py '
                'or tools/image_demo.py (not for teachers).'
            ) from error
        except Exception as error:  # a damaged file, and objects of a trusted one, raise anything
            if isinstance(error, MemoryError) or 'allocate memory' in str(error):
                raise
            if trust and isinstance(error, (ImportError, AttributeError)):
                raise ValueError(f'{path} holds Python objects of an absent package: {error}') from error
            reason = str(error) if type(error) is ValueError else f'{type(error).__name__}: {error}'
            raise ValueError(
                f'{path} ({path.stat().st_size:,} bytes) is damaged or no checkpoint: '
                f'{reason.partition(chr(10))[0]}. Copy or download it again.'
            ) from error
    checkpoint = _unwrap(content, path)
    if wrong := not_finite(checkpoint['state_dict']):
        warnings.warn(
            f'{path}: {len(wrong)} of {len(checkpoint["state_dict"])} tensors hold NaN or infinite numbers, '
            f'the first is {wrong[0]}',
            stacklevel=2,
        )
    return checkpoint


def _read(file: BinaryIO, trust: bool) -> Any:
    """Read what `torch.save` or safetensors has written, after a check; the latter holds no checksums."""
    head = file.read(HEAD)
    file.seek(0)
    if describe(head) == 'a safetensors file':
        return safetensors.torch.load(file.read())
    check_file(file, trust)
    file.seek(0)
    # the settings of a training script, read as a dict
    with torch.serialization.safe_globals([(Settings, 'argparse.Namespace')]):
        return torch.load(file, map_location='cpu', weights_only=not trust, mmap=False)


class Settings(dict[str, Any]):
    """What an `argparse.Namespace` of a file becomes: its entries, and no object of that class."""

    def __setstate__(self, entries: dict[str, Any]) -> None:
        """Take the entries."""
        self.update(entries)


def _open(path: Path) -> BinaryIO:
    """Open a checkpoint file.

    Raises:
        FileNotFoundError: There is none, or a link to none.
        ValueError: It is a folder, or may not be read.
    """
    if path.is_dir():
        found = ', '.join(sorted(file.name for file in path.glob('*.pth'))) or 'none is there'
        raise ValueError(f'{path} is a folder; give a checkpoint in it: {found}')
    if not path.is_file():
        link = f', which links to {path.readlink()}' if path.is_symlink() else ''
        raise FileNotFoundError(
            f'checkpoint not found: {path.absolute()}{link}.{suggest(path)}\n  Training writes its newest '
            'one to work_dirs/<config name>/latest.pth, or to latest.pth in its --work-dir.'
        )
    try:
        return path.open('rb')
    except OSError as error:
        raise ValueError(f'{path} cannot be read: {error.strerror}') from error


def _unwrap(content: Any, path: Path) -> dict[str, Any]:
    """Find the weights of a file, free their names of what wrappers put before them, and check its meta.

    Raises:
        ValueError: There are no weights, or the meta is of another form.
    """
    entries = dict(content) if isinstance(content, Mapping) else {'': content}
    # our own models, and MMDetection's, may have a `model`
    wrappers = WRAPPERS[:2] if 'meta' in entries else WRAPPERS
    states = {key: state for key, item in entries.items() if (state := _tensors(item, wrappers))}
    known = [key for key in STATE_KEYS if key in states] or ([*states] if len(states) == 1 else [])
    bare = _tensors(content, wrappers)
    if not bare and not known:
        found = {key: type(item).__name__ for key, item in list(entries.items())[:SHOWN]}
        raise ValueError(
            f'{path} holds no weights: neither a dict of tensors, nor one under {", ".join(STATE_KEYS)}, but '
            f'{found}'
        )
    if known[:1] == ['model_ema']:
        warnings.warn(f'{path}: the averaged weights are taken, model_ema', stacklevel=3)
    checkpoint = {'state_dict': bare} if bare else entries | {'state_dict': states[known[0]]}
    meta = checkpoint['meta'] = checkpoint.get('meta') or {}
    if (
        not isinstance(meta, Mapping)
        or not isinstance(meta.get('dataset_meta') or {}, Mapping)
        or not all(isinstance(name, str) for name in checkpoint_classes(checkpoint) or ())
    ):
        raise ValueError(f'{path}: its "meta" is not a dict, or the class names in it are not strings')
    return checkpoint


def _tensors(value: Any, wrappers: Sequence[str]) -> dict[str, Tensor]:
    """Take the tensors of a state dict, under names without prefixes of wrappers; {} where it is none."""
    if isinstance(value, nn.Module):  # in a trusted file
        value = value.state_dict()
    if not isinstance(value, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    ):
        return {}
    state = {name: tensor for name, tensor in value.items() if name != 'n_averaged'}  # AveragedModel counts
    while state and (prefix := next((one for one in wrappers if all(n.startswith(one) for n in state)), '')):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return {name.replace(WRAPPERS[1], ''): tensor for name, tensor in state.items()}


def not_finite(value: Any, place: str = '') -> list[str]:
    """List the tensors inside dicts and lists that hold NaN or infinite numbers, by their places."""
    match value:
        case Tensor():  # a finite sum has finite terms; otherwise each of them is looked at
            return [] if value.sum().isfinite() or value.isfinite().all() else [place]
        case Mapping():
            items = dict(value)
        case list():
            items = dict(enumerate(value))
        case _:
            return []
    prefix = f'{place}.' if place else ''
    return [name for key, item in items.items() for name in not_finite(item, f'{prefix}{key}')]


def checkpoint_classes(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Get the class names that a loaded checkpoint was trained on; None when it does not say."""
    meta = checkpoint['meta']
    dataset_meta = meta.get('dataset_meta') or {}
    # ours and MMDetection 3.x, then 3.0 candidates, then 2.x
    names = dataset_meta.get('classes') or dataset_meta.get('CLASSES') or meta.get('CLASSES') or ()
    return (tuple(names) if isinstance(names, (list, tuple)) else (names,)) or None


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load every weight of a model, and nothing else, from a state dict.

    Older names are converted by the model as the state dict is loaded, in a `load_state_dict` pre-hook.
    Messages name the `source`.

    Raises:
        ValueError: The two do not fit each other; lists what is missing, unexpected, of another shape.
    """
    own = model.state_dict()
    for name in own.keys() & state.keys():  # copying turns one into the other without a word
        if own[name].is_floating_point() != state[name].is_floating_point():
            raise ValueError(
                f'{source} does not fit the {type(model).__name__} of this config: {name} is '
                f'{state[name].dtype}, not {own[name].dtype}'
            )
    try:
        model.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise ValueError(
            f'{source} does not fit the {type(model).__name__} of this config:\n{_shorten(str(error))}\n'
            '  Use the config that the checkpoint was trained with, and a data set with its classes.'
        ) from error


def _shorten(message: str) -> str:
    """Shorten what `nn.Module.load_state_dict` says: some names of each list, some lines."""
    lists = [line.strip().split(', "') for line in message.splitlines()[1:]]
    lines = [
        '  ' + ', "'.join(names[:SHOWN]) + (f' and {len(names) - SHOWN} more' if len(names) > SHOWN else '')
        for names in lists
    ]
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f'  and {len(lines) - SHOWN} more']
    return '\n'.join(lines)
