"""Checkpoint files: tensors, numbers, strings, lists and dicts, written whole or not at all.

Reading one never runs code from it: what a file may name is listed in `checkpoint_file`. MMEngine's list
holds `getattr`, with which a crafted file reaches any function.
"""

import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from mmdet.checkpoint.safety import PythonObjectError, TensorOutline, check_records, read_outline

SHOWN = 6  # names that an error message lists before it only counts


def to_serializable(value: Any, place: str = 'checkpoint') -> Any:
    """A copy of `value` made of tensors on the CPU, numbers, strings, lists and dicts.

    Tuples become lists, NumPy values their equals, paths strings.

    Raises:
        TypeError: Something else is inside; names the place.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        repeats = value.numel() > value.untyped_storage().nbytes() // value.element_size()
        return value.detach().cpu().contiguous() if repeats else value.detach().cpu()
    if isinstance(value, Mapping):
        return {
            to_serializable(key, place): to_serializable(item, f'{place}[{key!r}]')
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [to_serializable(item, f'{place}[{i}]') for i, item in enumerate(value)]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return str(value)
    raise TypeError(
        f'{place} is a {type(value).__name__}; a checkpoint holds tensors, numbers, strings, lists and '
        'dicts only'
    )


def save_checkpoint(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Write a checkpoint so that `path` is at every moment the old file or the whole new one.

    Args:
        checkpoint: What `to_serializable` accepts.
        path: Its folder must exist.

    Raises:
        OSError: It cannot be written: names the file, the free space and the remedy.
    """
    content = to_serializable(checkpoint)
    atomic_write(path, lambda file: torch.save(content, file))


def atomic_write(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file so that `path` is at every moment the old file or the whole new one.

    Raises:
        OSError: As `save_checkpoint`; no part of the new file is left.
    """
    path = Path(path)
    name = ''
    try:
        handle, name = tempfile.mkstemp(prefix=f'.{path.name}.', suffix='.tmp', dir=path.parent)
        with os.fdopen(handle, 'wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())  # mkstemp lets nobody else read
        Path(name).replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        if name:
            Path(name).unlink(missing_ok=True)
        cause = _find_os_error(error)
        if cause is None:
            raise
        raise OSError(_describe_write_error(path, cause)) from error


def _find_os_error(error: BaseException | None) -> OSError | None:
    """What the system said: where a write fails torch.save raises its own error in the handling of that."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _describe_write_error(path: Path, error: OSError) -> str:
    try:
        free = f'{shutil.disk_usage(path.parent).free / 1e6:,.1f} MB'
    except OSError:  # the folder is gone
        free = 'nothing'
    return (
        f'{path} cannot be written: {error.strerror or error}; {free} is free there. Files that were '
        'written before are whole. Make room or choose another folder (training: --work-dir DIR; '
        '--cfg-options default_hooks.checkpoint.max_keep_ckpts=3 keeps fewer) and start again; a training '
        'goes on with --resume.'
    )


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
    """Make `link` a symbolic link to `target` beside it (a copy where there are no links), in one step.

    Raises:
        OSError: Neither can be written.
    """
    new = link.with_name(f'.{link.name}.{os.getpid()}.tmp')
    new.unlink(missing_ok=True)
    try:
        new.symlink_to(target.name)
    except OSError:
        atomic_write(link, lambda file: file.write(target.read_bytes()))
        return
    new.replace(link)
    _sync_folder(link.parent)


def remove_temp_files(folder: str | Path) -> None:
    """Remove the temporary files of writers that were killed; none may be at work in this folder."""
    for file in Path(folder).glob('.*.tmp'):
        file.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_checkpoint(path: str | Path, trust: bool = False) -> dict[str, Any]:
    """Read a checkpoint: ours, MMDetection's, a classifier's, or a bare state dict.

    A damaged file is noticed by its checksums. Files in the format before torch 1.6 hold none: there only
    what changes the size or the structure is noticed, a flipped bit of a weight is not. Weights that are not
    finite are loaded, with a warning.

    Args:
        path: The file.
        trust: Unpickle whatever it holds, with a warning. That runs code from the file.

    Returns:
        A dict with `state_dict` (tensors on the CPU, names without the prefix `module.`), `meta` (a dict,
        perhaps empty) and whatever else the file holds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, holds no weights, or holds Python objects.
    """
    path = Path(path)
    with _open(path) as file:
        if trust:
            warnings.warn(f'{path} is trusted: code inside it runs', stacklevel=2)
            _check(check_records, file, path)
        else:
            _check(read_outline, file, path)
        file.seek(0)
        try:
            content = torch.load(file, map_location='cpu', weights_only=not trust, mmap=False)
        except MemoryError:
            raise
        except (ImportError, AttributeError) as error:
            raise ValueError(f'{path} holds Python objects of a package that is absent: {error}') from error
        except Exception as error:  # objects of a trusted file raise anything
            if 'allocate memory' in str(error):
                raise
            raise ValueError(_describe_damage(path, str(error).partition('\n')[0])) from error
    checkpoint = _unwrap(content, path)
    _warn_not_finite(checkpoint['state_dict'], path)
    return checkpoint


def outline_checkpoint(path: str | Path) -> dict[str, Any]:
    """As `load_checkpoint` with a `TensorOutline` for each tensor; the whole file is checked all the same."""
    path = Path(path)
    with _open(path) as file:
        return _unwrap(_check(read_outline, file, path), path)


def _open(path: Path) -> BinaryIO:
    """A checkpoint file, opened.

    Raises:
        FileNotFoundError: There is none, or a link to none.
        ValueError: It is a folder, or may not be read.
    """
    if path.is_dir():
        raise ValueError(f'{path} is a folder; give a checkpoint in it, {path / "latest.pth"}')
    if not path.is_file():
        link = f', which links to {path.readlink()}' if path.is_symlink() else ''
        raise FileNotFoundError(
            f'checkpoint not found: {path.absolute()}{link}\n  Training writes its newest one to '
            'work_dirs/<config name>/latest.pth, or to latest.pth in its --work-dir.'
        )
    try:
        return path.open('rb')
    except OSError as error:
        raise ValueError(f'{path} cannot be read: {error.strerror}') from error


def _check(check: Callable[[BinaryIO], Any], file: BinaryIO, path: Path) -> Any:
    """What a check of `checkpoint_file` returns; its errors with the file and the remedy."""
    try:
        return check(file)
    except PythonObjectError as error:
        plain_path = path.with_name(f'{path.stem}_plain.pth')
        raise ValueError(
            f'{path} holds Python objects ({error}) besides tensors, numbers, strings, lists and dicts; it '
            'is not read, since that could run code from it.\n  If you trust where it came from, keep its '
            f'weights: python -m mmdet.checkpoint.io {path} {plain_path}\n  or give --trust-checkpoint to '
            'tools/train.py, tools/test.py or tools/image_demo.py (not for teachers).'
        ) from error
    except (ValueError, OSError) as error:
        raise ValueError(_describe_damage(path, str(error))) from error


def _describe_damage(path: Path, reason: str) -> str:
    size = path.stat().st_size
    return f'{path} ({size:,} bytes) is damaged or no checkpoint: {reason}. Copy or download it again.'


def _unwrap(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise ValueError(f'{path} holds a {type(content).__name__}, not a dict of weights')
    checkpoint = dict(content) if 'state_dict' in content else {'state_dict': content}
    state = checkpoint['state_dict']
    if not isinstance(state, Mapping) or not state or not all(map(_is_weight, state, state.values())):
        keys = ', '.join(map(str, list(content)[:SHOWN]))
        raise ValueError(f'{path} holds no weights: neither "state_dict" nor a dict of tensors, but {keys}')
    wrapped = all(name.startswith('module.') for name in state)
    checkpoint['state_dict'] = {
        name.removeprefix('module.') if wrapped else name: tensor for name, tensor in state.items()
    }
    meta = checkpoint.get('meta') or {}
    if not isinstance(meta, Mapping) or not isinstance(meta.get('dataset_meta') or {}, Mapping):
        raise ValueError(f'{path}: its "meta", or the "dataset_meta" in it, is not a dict')
    checkpoint['meta'] = dict(meta)
    names = checkpoint_classes(checkpoint)
    if names is not None and not all(isinstance(name, str) for name in names):
        raise ValueError(f'{path}: its class names are not strings')
    return checkpoint


def _is_weight(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, (Tensor, TensorOutline))


def _warn_not_finite(state: Mapping[str, Tensor], path: Path) -> None:
    wrong = not_finite(state)
    if wrong:
        warnings.warn(
            f'{path}: {len(wrong)} of {len(state)} tensors hold NaN or infinite numbers, the first is '
            f'{wrong[0]}',
            stacklevel=3,
        )


def not_finite(value: Any, place: str = '') -> list[str]:
    """Places of the tensors inside dicts and lists that hold NaN or infinite numbers."""
    if isinstance(value, Tensor):
        # a finite sum has finite terms; only where it is not each of them is looked at
        return [] if value.sum().isfinite() or value.isfinite().all() else [place]
    inside = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    )
    return [
        name for key, item in inside for name in not_finite(item, f'{place}.{key}' if place else str(key))
    ]


def checkpoint_classes(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The class names that a checkpoint of `load_checkpoint` was trained on; None when it does not say."""
    meta = checkpoint['meta']
    dataset_meta = meta.get('dataset_meta') or {}
    # ours and MMDetection 3.x, then 3.0 candidates, then 2.x
    names = dataset_meta.get('classes') or dataset_meta.get('CLASSES') or meta.get('CLASSES')
    if not names:
        return None
    return tuple(names) if isinstance(names, (list, tuple)) else (names,)


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load every weight of a model, and nothing else, from a state dict.

    Older names are converted by the model as the state dict is loaded, in a `load_state_dict` pre-hook.

    Args:
        model: Not wrapped.
        state: Names and tensors.
        source: The file, for messages.

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
    """What `nn.Module.load_state_dict` says, some names of each list instead of all."""
    lists = [line.strip() for line in message.splitlines()[1:] if line.strip()]
    shapes = [line for line in lists if line.startswith('size mismatch')]
    lines = []
    for line in lists:
        if line not in shapes:
            names = line.split(', ')
            more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
            lines.append(f'  {", ".join(names[:SHOWN]).rstrip(". ")}{more}')
    lines += [f'  {line}' for line in shapes[:SHOWN]]
    if len(shapes) > SHOWN:
        lines.append(f'  and {len(shapes) - SHOWN} more of another shape')
    return '\n'.join(lines)


def rewrite_trusted(source: str | Path, target: str | Path) -> None:
    """Keep weights and class names of a file that holds Python objects. This runs code from the file."""
    checkpoint = load_checkpoint(source, trust=True)
    classes = checkpoint_classes(checkpoint)
    meta = {} if classes is None else {'dataset_meta': {'classes': list(classes)}}
    save_checkpoint({'meta': meta, 'state_dict': checkpoint['state_dict']}, target)


def main(argv: Sequence[str]) -> None:
    """`python -m mmdet.checkpoint.io IN OUT`: `rewrite_trusted`."""
    if len(argv) != 2:
        raise SystemExit('usage: python -m mmdet.checkpoint.io TRUSTED_IN PLAIN_OUT')
    rewrite_trusted(*argv)
    print(f'{argv[1]}: weights and class names of {argv[0]}')


if __name__ == '__main__':
    main(sys.argv[1:])
