"""Several processes, one of which fails: forked; in the long part as tools/dist_train.sh starts them."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmdet.checkpoint.io import load_checkpoint
from mmdet.distributed.heartbeat import GRACE
from tests.helpers.disturb import ERROR, HANG
from tests.helpers.forked import Fate, finish, free_port, launched, said, start_server, train_as_typed
from tests.helpers.forked import start as begin
from tests.helpers.tiny_run import PLAIN, ROOT, as_arguments, options_of, write_sets

ITERATIONS = 6
TIMEOUT = 10  # seconds that a process waits for the others
KILL, STOP = signal.SIGKILL.name, signal.SIGSTOP.name


class Run:
    """One launcher and its processes.

    Args:
        command: Of the launcher.
        environment: Beside the tests' own.
        log: What all of them write.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open('w') as file:
            self.launcher = subprocess.Popen(
                command,
                cwd=log.parent,
                env={**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def steps(self) -> list[tuple[int, int, int, int]]:
        """Start, process, iteration and pid of each step that began."""
        return [
            (int(start), int(rank), int(step), int(pid))
            for start, rank, step, pid in re.findall(r'<(\d+) (\d+) (\d+) (\d+)>', self.said)
        ]

    def weights(self) -> dict[int, str]:
        """By process, a hash of the weights that it ends with."""
        return {int(rank): found for rank, found in re.findall(r'<(\d+) ends with ([^>]+)>', self.said)}

    def wait(self, limit: float = 400) -> int:
        """Wait for the launcher; no process of it is left then. Returns the exit status."""
        status = self.launcher.wait(limit)
        end = time.monotonic() + 10
        while left := self.left():
            assert time.monotonic() < end, f'{left} are left behind'
            time.sleep(0.1)
        return status

    def left(self) -> set[int]:
        """Processes that are still there."""
        return {pid for pid in {pid for *_, pid in self.steps()} if Path(f'/proc/{pid}').exists()}

    def end(self) -> None:
        """Kill whatever is left."""
        self.launcher.kill()
        self.launcher.wait()
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


Words = Callable[..., list[str]]
Start = Callable[..., Run]


@pytest.fixture
def words(tiny_coco: Callable[..., Path], tmp_path: Path) -> Words:
    """`words(faults, ...)`: what is typed to train six steps, after the name of the tool."""
    root = write_sets(tiny_coco, tmp_path / 'set', images=12)
    config = tmp_path / 'run.py'
    config.write_text(f"_base_ = {str(PLAIN)!r}\ncustom_imports = dict(imports=['tests.helpers.disturb'])\n")

    def type_(
        faults: Sequence[tuple[Any, ...]] = (),
        work_dir: Path = tmp_path / 'run',
        further: Sequence[str] = (),
        pause: float = 0,
        grace: float = GRACE,
        **options: Any,
    ) -> list[str]:
        fault_hook = {
            'type': 'FaultHook',
            'faults': [list(fault) for fault in faults],
            'pause': pause,
            'grace': grace,
        }
        given = {
            'train_cfg.max_iters': ITERATIONS,
            'default_hooks.checkpoint.interval': 2,
            'default_hooks.checkpoint.by_epoch': False,
            'env_cfg.dist_cfg.timeout': TIMEOUT,
            'custom_hooks': [fault_hook, {'type': 'WeightsHook'}],
            **options,
        }
        typed = [str(config), *further, '--data-root', str(root), '--work-dir', str(work_dir)]
        return [*typed, '--no-validate', *as_arguments(options_of(**given))]

    return type_


@pytest.fixture
def start(words: Words, tmp_path: Path) -> Iterator[Start]:
    """`start(faults, ...)` starts what is typed; whatever is left of it is killed in the end."""
    runs: list[Run] = []

    def start(
        faults: Sequence[tuple[Any, ...]] = (),
        processes: int = 2,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        **keywords: Any,
    ) -> Run:
        command = [*prefix, 'bash', str(ROOT / 'tools/dist_train.sh')]
        command += words(faults, further=[str(processes)], **keywords)
        given = {'PYTHON': sys.executable, 'PORT': str(free_port()), **(environment or {})}
        runs.append(Run(command, given, tmp_path / f'log{len(runs)}.txt'))
        return runs[-1]

    yield start
    for run in runs:
        run.end()


def named(rank: int, pid: int) -> str:
    """A pattern of the words by which another process names one that is missing."""
    return rf'process {rank} \(host \S+, pid {pid}\) does not answer: it has died or hangs'


def steps_of(run: Run, start: int, rank: int) -> list[int]:
    return [step for began, one, step, _ in run.steps() if (began, one) == (start, rank)]


def test_a_killed_then_a_hanging_process_then_the_end(words, tmp_path):
    """Each time the other one names it, and a restart goes on from the last checkpoint.

    Two processes, as torchrun starts them where it may start them again; what one cannot read is listed.
    """
    limit = 6
    typed = words(
        [(0, 1, 4, KILL), (1, 1, 5, HANG)],
        further=['--launcher', 'pytorch'],
        **{
            'env_cfg.dist_cfg.timeout': limit,
            'train_dataloader.sampler.shuffle': False,
            'train_dataloader.dataset.on_bad_image': 'skip',
        },
        grace=1,
    )
    damaged = tmp_path / 'set/train/2.jpg'  # is of process 1
    damaged.write_bytes(b'no picture')
    start_server()
    for start, statuses in enumerate(((1, -signal.SIGKILL), (1, None), (0, 0))):
        restarts = {'TORCHELASTIC_MAX_RESTARTS': '2', 'TORCHELASTIC_RESTART_COUNT': str(start)}
        fates = [Fate(tmp_path / 'run', environment={**each, **restarts}) for each in launched(2)]
        one, other = (begin(train_as_typed, typed, fate=fate) for fate in fates)
        begun = time.monotonic()
        try:
            assert finish(one) == statuses[0]
            if statuses[1] is None:
                assert time.monotonic() - begun < limit + GRACE + 20  # begins, on a busy machine
            else:
                assert finish(other) == statuses[1]
        finally:
            other.kill()
        told = said(fates[0])
        assert bool(re.search(named(1, other.pid), told)) == (statuses[0] == 1)
        assert told.count('error: process 0 has lost the others (') == min(start + 1, 2)
    steps = [f'0 0 {step}' for step in '1234'] + [f'1 0 {step}' for step in '345'] + ['2 0 5', '2 0 6']
    assert re.findall(r'<(. 0 .) ', told) == steps
    (first, second) = re.findall(r'<\d ends with (\w+)', told)
    assert first == second
    (image,) = json.loads((tmp_path / 'run/bad_data.json').read_text())['images']
    assert (image['split'], image['img_id'], image['file']) == ('train', 2, str(damaged))


@pytest.mark.long
@pytest.mark.parametrize(('rank', 'what'), [(0, STOP), (1, STOP), (1, KILL), (1, ERROR)])
def test_every_fault_ends_the_run(start, rank, what):
    """In time, with a message that names the process, and nothing is left behind."""
    run = start([(0, rank, 3, what)])
    assert run.wait() != 0
    assert steps_of(run, 0, rank) == [1, 2, 3]
    (pid,) = {pid for _, one, _, pid in run.steps() if one == rank}
    if what == STOP:
        assert re.search(named(rank, pid), run.said)
    elif what == KILL:
        assert f'exitcode: -9) local_rank: {rank}' in run.said
    else:
        assert f'[process {rank}] error: a fault of its own' in run.said
        assert 'raise ValueError' in run.said.split('Root Cause (first observed failure):')[1]


@pytest.mark.long
def test_restarts_lead_to_the_same_weights(start, tmp_path):
    """Bit for bit those of a run without faults, wherever processes die or hang."""
    rng = random.Random(4)
    whole = start(work_dir=tmp_path / 'whole')
    assert whole.wait() == 0
    for number in range(2):
        step = rng.randint(1, ITERATIONS)
        later = rng.randint((step - 1) // 2 * 2 + 1, ITERATIONS)  # from the checkpoint on
        faults = [
            (restart, rng.randrange(2), at, rng.choice([KILL, HANG, ERROR]))
            for restart, at in enumerate((step, later))
        ]
        run = start(faults, work_dir=tmp_path / f'run{number}', environment={'MAX_RESTARTS': '2'})
        assert run.wait() == 0, (faults, run.said[-3000:])
        assert {start for start, *_ in run.steps()} == {0, 1, 2}
        assert run.weights() == whole.weights()


@pytest.mark.long
@pytest.mark.parametrize(('rank', 'what'), [(0, KILL), (0, STOP), (1, KILL)])
def test_processes_without_a_launcher(words, tmp_path, request, what, rank):
    """As mpirun starts them: process 0 holds the store, and the others end even when it does not answer."""
    port = str(free_port())
    command = [sys.executable, str(ROOT / 'tools/train.py')]
    command += words([(0, rank, 3, what)], further=['--launcher', 'mpi'])
    runs = []
    for number in range(2):
        numbers = {'RANK': str(number), 'LOCAL_RANK': str(number), 'SIZE': '2'}
        environment = {f'OMPI_COMM_WORLD_{name}': value for name, value in numbers.items()}
        runs.append(Run(command, {**environment, 'MASTER_PORT': port}, tmp_path / f'log{number}.txt'))
        request.addfinalizer(runs[-1].end)
    other = runs[1 - rank]
    assert other.launcher.wait(400) == 1
    assert f'process {1 - rank} has lost the others' in other.said
    if rank == 1:
        assert re.search(named(1, runs[1].launcher.pid), other.said)
    elif what == KILL:
        assert 'the launcher on 127.0.0.1, which held the list of all, is gone' in other.said


@pytest.mark.long
def test_when_the_launcher_is_killed_the_processes_save_and_end(start, tmp_path):
    run = start(pause=0.5)
    while len(run.steps()) < 4:
        assert run.launcher.poll() is None
        time.sleep(0.1)
    run.launcher.kill()
    run.wait(30)
    assert 'stopped by SIGTERM' in run.said
    saved = load_checkpoint(tmp_path / 'run/latest.pth')['meta']['iter']
    assert 2 <= saved == max(step for _, _, step, _ in run.steps()) < ITERATIONS


@pytest.fixture
def hosts() -> Iterator[list[list[str]]]:
    """Two hosts, as what to write before a command: network namespaces with a cable between them."""
    if not shutil.which('ip'):
        pytest.skip('needs ip of iproute2')
    names = [f'distill{os.getpid()}{letter}' for letter in 'ab']

    def ip(*words: str) -> bool:
        return subprocess.run(['ip', *words], capture_output=True, check=False).returncode == 0

    try:
        if not all(ip('netns', 'add', name) for name in names):
            pytest.skip('network namespaces are not allowed here')
        assert ip('link', 'add', 'c0', 'netns', names[0], 'type', 'veth', 'peer', 'c1', 'netns', names[1])
        for number, name in enumerate(names):
            assert ip('-n', name, 'addr', 'add', f'10.77.0.{number + 1}/24', 'dev', f'c{number}')
            assert all(ip('-n', name, 'link', 'set', device, 'up') for device in ('lo', f'c{number}'))
        yield [['ip', 'netns', 'exec', name] for name in names]
    finally:
        for name in names:
            ip('netns', 'del', name)


@pytest.fixture
def start_hosts(start: Start, hosts: list[list[str]]) -> Callable[..., list[Run]]:
    """As `start`, one process on each of two hosts."""

    def start_all(
        faults: Sequence[tuple[Any, ...]] = (), timeout: int = TIMEOUT, **environment: str
    ) -> list[Run]:
        given = {'NNODES': '2', 'MASTER_ADDR': '10.77.0.1', 'PORT': '29500', **environment}
        return [
            start(
                faults,
                1,
                prefix=host,
                environment={'NODE_RANK': str(number), 'GLOO_SOCKET_IFNAME': f'c{number}', **given},
                **{'env_cfg.dist_cfg.timeout': timeout},
            )
            for number, host in enumerate(hosts)
        ]

    return start_all


@pytest.mark.long
def test_a_process_of_another_host_dies(start_hosts, start, tmp_path):
    """It is named on this one; both restart, and what they train is what two processes of one host train."""
    one = start(work_dir=tmp_path / 'one')
    assert one.wait() == 0
    first, second = start_hosts([(0, 1, 4, KILL)], timeout=60, MAX_RESTARTS='1')
    assert [first.wait(), second.wait()] == [0, 0]
    assert first.weights() | second.weights() == one.weights()
    assert set(one.weights()) == {0, 1}
    assert steps_of(first, 1, 0) == steps_of(second, 1, 1) == [3, 4, 5, 6]
    assert re.search(named(1, second.steps()[0][-1]), first.said)


@pytest.mark.long
def test_a_process_of_another_host_hangs(start_hosts):
    """This host's launcher ends and names it; the other's, whose process it is, has to be ended by hand."""
    first, second = start_hosts([(0, 1, 4, HANG)])
    assert first.wait() != 0
    assert re.search(named(1, second.steps()[0][-1]), first.said)
