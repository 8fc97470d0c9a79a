"""Several processes, one of which fails: forked; in the long part as tools/dist_train.sh starts them."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
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

    def wait(self, limit: float = 150) -> int:
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
        **options: Any,
    ) -> list[str]:
        fault_hook = {'type': 'FaultHook', 'faults': [list(fault) for fault in faults], 'pause': pause}
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


def assert_names(run: Run, rank: int, step: int, start: int = 0) -> None:
    """Another process says which one is missing: its number, its pid, where it was and when."""
    (pid,) = {pid for began, one, _, pid in run.steps() if (began, one) == (start, rank)}
    found = re.search(
        rf'process {rank} \(host \S+, pid {pid}\) .* in iteration (\d+) .* (\d+) s ago', run.said
    )
    assert found, run.said[-3000:]
    assert int(found[1]) <= step


def steps_of(run: Run, start: int, rank: int) -> list[int]:
    return [step for began, one, step, _ in run.steps() if (began, one) == (start, rank)]


def begin_two(typed: Sequence[str], folder: Path, start: int = 0) -> list[ForkServerProcess]:
    """Two processes that train together, as torchrun starts them where it may start them once again."""
    start_server()
    restarts = {'TORCHELASTIC_MAX_RESTARTS': '1', 'TORCHELASTIC_RESTART_COUNT': str(start)}
    fates = [Fate(folder, environment={**environment, **restarts}) for environment in launched(2)]
    return [begin(train_as_typed, typed, fate=fate) for fate in fates]


@pytest.mark.parametrize('what', [HANG, ERROR])
def test_the_other_process_ends_and_tells_why(words, tmp_path, what):
    """Within the time-out and the few seconds in which it asks for the first one."""
    limit = 6
    typed = words([(0, 1, 3, what)], further=['--launcher', 'pytorch'], **{'env_cfg.dist_cfg.timeout': limit})
    one, other = begin_two(typed, tmp_path / 'run')
    try:
        assert finish(one) == 1
    finally:
        other.kill()
    told = said(Fate(tmp_path / 'run'))
    assert 'error: process 0 has lost the others (' in told
    if what == ERROR:
        assert 'process 1 ended with an error: a fault of its own' in told
        assert 'has died or hangs' not in told
    else:
        named = rf'process 1 \(host \S+, pid {other.pid}\) .* in iteration [123] .* (\d+) s ago'
        age = int(re.findall(named, told)[0])
        assert limit <= age <= limit + GRACE + 5  # of a busy machine


def test_a_restart_goes_on_from_the_last_checkpoint(words, tmp_path):
    """To the same weights as without."""
    further = ['--launcher', 'pytorch']
    whole = begin_two(words(work_dir=tmp_path / 'whole', further=further), tmp_path / 'whole')
    assert [finish(process) for process in whole] == [0, 0]
    typed = words([(0, 1, 4, KILL)], further=further)
    assert [finish(process) for process in begin_two(typed, tmp_path / 'run')] == [1, -signal.SIGKILL]
    assert [finish(process) for process in begin_two(typed, tmp_path / 'run', start=1)] == [0, 0]
    told = said(Fate(tmp_path / 'run'))
    assert re.findall(r'<1 0 (\d) ', told) == re.findall(r'<1 1 (\d) ', told) == ['3', '4', '5', '6']
    ends = r'<\d ends with [^>]+>'
    assert sorted(re.findall(ends, told)) == sorted(re.findall(ends, said(Fate(tmp_path / 'whole'))))


@pytest.mark.long
def test_a_killed_process_then_a_hanging_one(start, tmp_path):
    """The launcher's restart goes on from the last checkpoint; the process that hangs in it is named."""
    run = start([(0, 1, 4, KILL), (1, 1, 5, HANG)], environment={'MAX_RESTARTS': '1'})
    assert run.wait() != 0
    assert steps_of(run, 0, 1) == [1, 2, 3, 4]
    assert steps_of(run, 1, 1) == [3, 4, 5]
    assert re.search(r'exitcode: -9\) local_rank: 1', run.said)
    assert_names(run, 1, step=5, start=1)
    assert load_checkpoint(tmp_path / 'run/latest.pth')['meta']['iter'] == 4


@pytest.mark.long
@pytest.mark.parametrize('rank', [0, 1])
@pytest.mark.parametrize('what', [KILL, STOP, HANG, ERROR])
def test_every_fault_ends_the_run(start, rank, what):
    """In time, with a message that names the process, and nothing is left behind."""
    run = start([(0, rank, 3, what)])
    assert run.wait() != 0
    assert steps_of(run, 0, rank) == [1, 2, 3]
    if what in (STOP, HANG):
        assert_names(run, rank, step=3)
    elif what == KILL:
        assert f'exitcode: -9) local_rank: {rank}' in run.said
    else:
        assert f'{"[process 1] " if rank else ""}error: a fault of its own' in run.said


@pytest.mark.long
def test_restarts_lead_to_the_same_weights(start, tmp_path):
    """Bit for bit those of a run without faults, wherever processes die or hang."""
    rng = random.Random(4)
    whole = start(work_dir=tmp_path / 'whole')
    assert whole.wait() == 0
    for number in range(3):
        faults = []
        for restart in range(2):
            first = 1 if restart == 0 else (faults[0][2] - 1) // 2 * 2 + 1
            what = rng.choice([KILL, HANG, ERROR])
            faults.append((restart, rng.randrange(2), rng.randint(first, ITERATIONS), what))
        run = start(faults, work_dir=tmp_path / f'run{number}', environment={'MAX_RESTARTS': '2'})
        assert run.wait() == 0, (faults, run.said[-3000:])
        assert {start for start, *_ in run.steps()} == {0, 1, 2}
        assert run.weights() == whole.weights()


@pytest.mark.long
@pytest.mark.parametrize('rank', [0, 1])
@pytest.mark.parametrize('what', [KILL, STOP])
def test_processes_without_a_launcher(words, tmp_path, request, what, rank):
    """As mpirun starts them: process 0 holds the notes, and the others end even when it does not answer."""
    port = str(free_port())
    command = [sys.executable, str(ROOT / 'tools/train.py')]
    command += words([(0, rank, 3, what)], further=['--launcher', 'mpi'])
    runs = []
    for number in range(2):
        environment = {
            'OMPI_COMM_WORLD_RANK': str(number),
            'OMPI_COMM_WORLD_LOCAL_RANK': str(number),
            'OMPI_COMM_WORLD_SIZE': '2',
            'MASTER_PORT': port,
        }
        runs.append(Run(command, environment, tmp_path / f'log{number}.txt'))
        request.addfinalizer(runs[-1].end)
    other = runs[1 - rank]
    assert other.launcher.wait(90) == 1
    assert f'process {1 - rank} has lost the others' in other.said
    if rank == 1:
        pid = runs[1].launcher.pid
        assert re.search(rf'process 1 \(host \S+, pid {pid}\) .* in iteration \d', other.said)
    elif what == KILL:
        assert 'the launcher on 127.0.0.1, which held the list of all, is gone' in other.said


@pytest.mark.long
def test_when_the_launcher_is_killed_the_processes_end(start):
    run = start(pause=0.5)
    while len(run.steps()) < 2:
        assert run.launcher.poll() is None
        time.sleep(0.1)
    run.launcher.kill()
    run.wait(30)
    assert 'the launcher on 127.0.0.1, which held the list of all, is gone' in run.said
    assert not run.weights()


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
                environment={'NODE_RANK': str(number), **given},
                **{'env_cfg.dist_cfg.timeout': timeout},
            )
            for number, host in enumerate(hosts)
        ]

    return start_all


@pytest.mark.long
def test_two_hosts(start_hosts, start, tmp_path):
    """The documented variables; what they train is what two processes of one host train."""
    one = start(work_dir=tmp_path / 'one')
    assert one.wait() == 0
    first, second = start_hosts()
    assert [first.wait(), second.wait()] == [0, 0]
    assert first.weights() | second.weights() == one.weights()
    assert set(one.weights()) == {0, 1}


@pytest.mark.long
def test_a_process_of_another_host_dies(start_hosts, start, tmp_path):
    """It is named on this one; both restart and end as if nothing had happened."""
    one = start(work_dir=tmp_path / 'one')
    assert one.wait() == 0
    first, second = start_hosts([(0, 1, 4, KILL)], timeout=60, MAX_RESTARTS='1')
    assert [first.wait(), second.wait()] == [0, 0]
    assert first.weights() | second.weights() == one.weights()
    assert steps_of(first, 1, 0) == steps_of(second, 1, 1) == [3, 4, 5, 6]
    pid = second.steps()[0][-1]
    assert re.search(rf'process 1 \(host \S+, pid {pid}\) .* in iteration \d', first.said)


@pytest.mark.long
def test_a_process_of_another_host_hangs(start_hosts):
    """This host's launcher ends and names it; the other's, whose process it is, has to be ended by hand."""
    first, second = start_hosts([(0, 1, 4, HANG)])
    assert first.wait() != 0
    pid = second.steps()[0][-1]
    assert re.search(rf'process 1 \(host \S+, pid {pid}\) .* in iteration \d', first.said)
