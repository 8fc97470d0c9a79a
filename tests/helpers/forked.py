"""Trainings in processes of their own that start at once: forked from one that has imported everything.

They can be killed: from outside, before the nth change of a file (`die_at`), or as a file grows beyond a
number of bytes (`die_beyond`).
"""

import contextlib
import importlib
import multiprocessing
import multiprocessing.forkserver
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mmdet.cli import run_main
from mmdet.commands import train as train_tool
from mmdet.registry import HOOKS
from tests.helpers.tiny_run import ROOT, be_quick, train
from tests.unit.engine import conftest as toys  # noqa: F401 (registers them)

for name in ('hotcoco', 'torch.utils.tensorboard', 'mmdet.visualization.curves'):
    with contextlib.suppress(
        ImportError
    ):  # imported here once, not in each process; the first two are optional
        importlib.import_module(name)

CHANGES = ('os.rename', 'os.remove', 'os.symlink', 'os.chmod', 'os.mkdir')  # audit events
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CONTEXT = multiprocessing.get_context('forkserver')


class Fate(NamedTuple):
    """What befalls a process, and what it is told."""

    folder: Path  # whose files are watched
    die_at: int | None = None  # SIGKILL before this change of a file, counted from 1
    die_beyond: int | None = None  # SIGXFSZ where a file grows beyond so many bytes
    full_beyond: int | None = None  # an error there instead
    environment: dict[str, str] = {}  # noqa: RUF012 (never changed)


def start_server() -> None:
    """The process that others are forked from; it has one thread and sees no GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', str(ROOT))
        patch.setenv('OMP_NUM_THREADS', '1')
        patch.setenv('CUDA_VISIBLE_DEVICES', '')
        CONTEXT.set_forkserver_preload(['tests.helpers.forked'])
        multiprocessing.forkserver.ensure_running()


def start(work: Callable[..., Any], *arguments: Any, fate: Fate) -> ForkServerProcess:
    """A process that does some work; what it prints goes to `FOLDER.out` beside its folder."""
    start_server()
    process = CONTEXT.Process(target=_live, args=(fate, work, arguments))
    process.start()
    return process


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return int(free.getsockname()[1])


def launched(processes: int) -> list[dict[str, str]]:
    """What a launcher tells each of the processes that it starts."""
    both = {'WORLD_SIZE': str(processes), 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(free_port())}
    return [{'RANK': str(rank), 'LOCAL_RANK': str(rank), **both} for rank in range(processes)]


def launch(script: str, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of `tools/` that starts processes by torchrun, to its end."""
    environment = {'PYTHON': sys.executable, 'PORT': str(free_port()), 'PYTHONPATH': str(ROOT)}
    return subprocess.run(
        ['bash', str(ROOT / 'tools' / script), *arguments],
        cwd=folder,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', **environment},
        capture_output=True,
        text=True,
        timeout=180,
        start_new_session=True,
        check=False,
    )


def finish(process: ForkServerProcess, timeout: float = 120) -> int:
    """The exit status of a process that ends by itself."""
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f'process {process.pid} did not end within {timeout} s')
    return process.exitcode


def said(fate: Fate) -> str:
    """What the processes of a folder have printed."""
    return fate.folder.with_suffix('.out').read_text(errors='replace')


def changes(fate: Fate) -> list[str]:
    """Changes of files that a process has come to."""
    return fate.folder.with_suffix('.changes').read_text().splitlines()


def train_config(cfg: Config) -> None:
    """Train what a config describes."""
    run_main(lambda: train(cfg))


def train_as_typed(arguments: Sequence[str]) -> None:
    """`python tools/train.py ARGUMENTS`."""
    run_main(lambda: train_tool.main(arguments))


def _live(fate: Fate, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    with fate.folder.with_suffix('.out').open('ab') as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.environ.update(fate.environment)
    be_quick(pytest.MonkeyPatch())
    torch.use_deterministic_algorithms(False)
    limit = fate.die_beyond or fate.full_beyond
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fate.die_beyond else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if fate.die_at is not None:
        _watch(str(fate.folder), fate.die_at, fate.folder.with_suffix('.changes'))
    work(*arguments)


def _watch(folder: str, die_at: int, notes: Path) -> None:
    """Note every change of a file in a folder, and end this process before one of them."""
    out = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    count = 0

    def hook(event: str, values: tuple[Any, ...]) -> None:
        nonlocal count
        written = event == 'open' and isinstance(values[2], int) and values[2] & WRITING
        if not written and event not in CHANGES:
            return
        place = values[1] if event in ('os.rename', 'os.symlink') else values[0]
        if str(place).startswith(f'{folder}/'):
            count += 1
            os.write(out, f'{event} {place}\n'.encode())
            if count == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


@HOOKS.register_module()
class SnapshotHook(Hook):
    """Copies the work dir after a step, as a process that is killed there leaves it, and notes image ids.

    Args:
        step: Counted from 1.
        into: The copy; None: no copy.
        notes: Where each process notes the ids of each step, `NOTES.RANK`.
    """

    priority = 'LOWEST'

    def __init__(self, step: int = 0, into: str | None = None, notes: str | None = None) -> None:
        self.step, self.into, self.notes = step, into, notes

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """After the checkpoint of the step."""
        if self.notes is not None:
            with open(f'{self.notes}.{runner.rank}', 'a') as out:  # noqa: PTH123 (an append of one line)
                out.write(f'{runner.iter + 1} {" ".join(map(str, data_batch["gt"].img_id.tolist()))}\n')
        if runner.iter + 1 == self.step:
            self._copy(runner)

    def after_train_epoch(self, runner: Any) -> None:
        """After the checkpoint of the epoch, which ends with the step before the one that is asked for."""
        if runner.iter + 0.5 == self.step:
            self._copy(runner)

    def _copy(self, runner: Any) -> None:
        if self.into is not None and runner.rank == 0:
            shutil.copytree(runner.work_dir, self.into, symlinks=True)
