"""`ddp`: two CPU processes with half the threads each against one with all, and what the wrapper costs.

The student is the small one of the quickstart: the exchange of gradients weighs more in its steps than in
those of SSD300, so its scaling is the harder case.
"""

import contextlib
import functools
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from mmengine.config import Config

from benchmarks.report import ROOT, Row, Target
from benchmarks.settings import Settings
from benchmarks.students import STEP, Subject, first_batch, our_step, with_gradient
from benchmarks.timing import Spread, interleaved, ratio
from mmdet.config.resolve import load_config
from mmdet.engine import DetRunner
from mmdet.registry import MODELS

CONFIG = ROOT / 'configs' / 'ssd' / 'ssd_tiny.py'
BATCH, STEPS = 32, 5  # images of all processes, steps of a round
QUICK_BATCH, QUICK_STEPS = 4, 1
CPU = torch.device('cpu')
SCALING = Row(
    'ddp',
    'two CPU processes / one, all threads in use',
    'x',
    Target(0.9),
    parity='both processes step with the same gradient, to the last bit',
)
WRAPPER = Row('ddp', 'wrapped / bare step, one process', 'x', Target(1.02, at_least=False))


def run(settings: Settings) -> list[Row]:
    """Measure the scaling over two processes, and the wrapper's cost in one."""
    if settings.threads < 2 and not settings.quick:
        note = f'needs two threads, this run has {settings.threads}'
        return [row._replace(note=note, parity='') for row in (SCALING, WRAPPER)]
    batch = settings.batch_size or (QUICK_BATCH if settings.quick else BATCH)
    batch += batch % 2  # two processes share it
    with group(1, settings._replace(batch_size=batch)) as solo:
        half = settings._replace(batch_size=batch // 2, threads=max(1, settings.threads // 2))
        with group(2, half) as pair:
            gradients = pair(gradient)
            contenders = {'one': lambda: solo(steps), 'two': lambda: pair(steps)}
            times = interleaved(contenders, settings.repeats, CPU)
        (cost,) = solo(wrapper_cost)
    seconds = times['one'].spread.median / _steps(settings)
    note = f'ssd_tiny, {batch} images a step, gloo; one process takes {seconds:.3g} s'
    unequal = [f'the processes step with different gradients: {gradients}'] if len({*gradients}) > 1 else []
    return [
        SCALING._replace(ours=ratio(times['one'], times['two']), faults=unequal, note=note),
        WRAPPER._replace(ours=cost, note='ssd_tiny, world size 1, gloo'),
    ]


@contextlib.contextmanager
def group(size: int, settings: Settings) -> Iterator[Callable[[Callable[[Settings], Any]], list[Any]]]:
    """Start processes that train together; yields a function that calls another one in all of them.

    Args:
        size: How many.
        settings: Of each process: its threads and its images a step.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        shared = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(free.getsockname()[1])}
    shared |= {'WORLD_SIZE': str(size), 'MKL_NUM_THREADS': str(settings.threads)}  # or MMEngine sets 1
    with contextlib.ExitStack() as stack:
        environs = [{**shared, 'RANK': str(rank), 'LOCAL_RANK': str(rank)} for rank in range(size)]
        pools = [
            stack.enter_context(ProcessPoolExecutor(1, get_context('spawn'), _set_environment, (environ,)))
            for environ in environs
        ]

        def ask(what: Callable[[Settings], Any]) -> list[Any]:
            return [answer.result() for answer in [pool.submit(what, settings) for pool in pools]]

        yield ask


def _set_environment(environ: dict[str, str]) -> None:
    os.environ.update(environ)


@functools.cache
def trainee(settings: Settings) -> tuple[Config, Any, STEP]:
    """Build config, wrapped student and its step as the runner does; once in each process."""
    torch.set_num_threads(settings.threads)
    cfg = load_config(CONFIG, {}, settings.data_root)
    cfg.optim_wrapper.optimizer.lr = 0.0
    size, port = os.environ['WORLD_SIZE'], os.environ['MASTER_PORT']
    runner = DetRunner(
        cfg.model,
        str(settings.work_dir / 'ddp' / size),
        launcher='pytorch',
        env_cfg={'mp_cfg': {'mp_start_method': 'spawn'}, 'dist_cfg': {'backend': 'gloo'}},
        randomness={'seed': 0},
        log_level='ERROR',
        default_scope='mmdet',
        experiment_name=f'ddp_{size}_{port}',
    )
    return cfg, runner.model, _step(runner.model, cfg, settings)


def steps(settings: Settings) -> None:
    """Run a round of steps."""
    for _ in range(_steps(settings)):
        trainee(settings)[2]()


def gradient(settings: Settings) -> float:
    """Return the norm of the gradient of a step."""
    return with_gradient(trainee(settings)[2])['gradient']


def wrapper_cost(settings: Settings) -> Spread:
    """Measure wrapped over bare steps."""
    cfg, model, wrapped = trainee(settings)
    bare = MODELS.build(cfg.model)
    bare.load_state_dict(model.module.state_dict())
    contenders = {'wrapped': wrapped, 'bare': _step(bare, cfg, settings)}
    rounds = _steps(settings)
    times = interleaved(contenders, rounds * settings.repeats, CPU, warm_up=rounds)
    return ratio(times['wrapped'], times['bare'])


def _step(model: Any, cfg: Config, settings: Settings) -> STEP:
    """Build a training step; each process has photos of its own."""
    count, rank = settings.batch_size or 1, int(os.environ['RANK'])
    data = first_batch(cfg, range(rank * count, (rank + 1) * count))
    return our_step(Subject(settings, model, cfg, data, [], []))


def _steps(settings: Settings) -> int:
    return QUICK_STEPS if settings.quick else STEPS
