"""From which checkpoint an interrupted run goes on."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmdet.checkpoint.io import outline_checkpoint

NUMBERED = re.compile(r'(epoch|iter)_\d+\.pth')  # best_*.pth holds weights only
PARTS = {'optimizer': Mapping, 'param_schedulers': list, 'rng': list}  # what resuming needs beside weights
COUNTS = ('epoch', 'iter', 'batch_in_epoch', 'samples_per_step', 'seed', 'skipped_steps')


class Choice(NamedTuple):
    """A checkpoint, and why others were not taken."""

    path: Path | None  # None: the run has not written any
    skipped: list[str]  # file and reason


def choose_checkpoint(work_dir: str | Path) -> Choice:
    """The newest whole checkpoint of a run: `latest.pth`, or else the one that is furthest by its own counts.

    Each file is read to its end and compared with its checksums. A run that was killed between writing a
    checkpoint and pointing `latest.pth` to it goes on from the one before, to the same result.

    Raises:
        ValueError: There are checkpoints and none can be resumed; lists them.
    """
    folder = Path(work_dir)
    latest = folder / 'latest.pth'
    skipped: list[str] = []
    if (latest.exists() or latest.is_symlink()) and _counts(latest, skipped):
        return Choice(latest, skipped)
    linked = latest.readlink().name if latest.is_symlink() else None
    others = [file for file in folder.glob('*.pth') if NUMBERED.fullmatch(file.name) and file.name != linked]
    found = [(counts, file) for file in sorted(others) if (counts := _counts(file, skipped))]
    if found:
        return Choice(max(found)[1], skipped)
    if skipped:
        raise ValueError(
            f'no checkpoint in {folder} can be resumed:\n  '
            + '\n  '.join(skipped)
            + '\n  Move them away to train from the beginning, or name another one: --resume FILE'
        )
    return Choice(None, [f'{file}: weights only' for file in sorted(folder.glob('best_*.pth'))])


def _counts(path: Path, skipped: list[str]) -> tuple[int, int] | None:
    """Iterations and epochs of a checkpoint; None when it cannot be resumed, and why is appended."""
    try:
        checkpoint = outline_checkpoint(path)
        check_resumable(checkpoint, path)
    except (OSError, ValueError) as error:
        target = f'{path} -> {path.readlink()}' if path.is_symlink() else str(path)
        skipped.append(f'{target}: {str(error).splitlines()[0].removeprefix(f"{path} ")}')
        return None
    return checkpoint['meta']['iter'], checkpoint['meta']['epoch']


def check_resumable(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Make sure that a checkpoint holds what a run needs to go on.

    Raises:
        ValueError: It holds weights only, or counts that are none.
    """
    missing = [key for key, kind in PARTS.items() if not isinstance(checkpoint.get(key), kind)]
    if missing:
        raise ValueError(
            f'{path} cannot be resumed: it has no {", ".join(missing)}. Resume from latest.pth of its run, '
            f'or start a new training from its weights: --cfg-options load_from={path}'
        )
    meta = {'skipped_steps': 0, **checkpoint['meta']}  # older checkpoints do not count them
    wrong = [name for name in COUNTS if type(meta.get(name)) is not int or meta[name] < 0]
    if wrong or meta['samples_per_step'] == 0:
        raise ValueError(
            f'{path} cannot be resumed: its meta does not count {", ".join(wrong) or "samples_per_step"}'
        )
