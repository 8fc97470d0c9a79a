"""`ddp`: two CPU processes with half the threads each against one with all, and what the wrapper costs.

The student is the small one of the quickstart on synthetic photos: the exchange of gradients weighs more in
its steps than in those of SSD300, so its scaling is the harder case.
"""

import os
import socket
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import multiprocessing, nn

from benchmarks.report import ROOT, Row, Target
from benchmarks.settings import Settings
from benchmarks.students import with_gradient
from benchmarks.timing import Spread, Timing, interleaved, ratio
from mmdet.engine import DetRunner
from mmdet.registry import MODELS
from mmdet.structures import GroundTruth

CONFIG = ROOT / 'configs' / 'ssd' / 'ssd_tiny.py'
BATCH, SIDE, OBJECTS = 32, 96, 4  # images of all processes, pixels, objects of an image
STEPS, QUICK_STEPS = 5, 1  # of a round
CPU = torch.device('cpu')
SCALING = Row('ddp', 'two CPU processes / one, all threads in use', 'x', Target(0.9))
WRAPPER = Row('ddp', 'wrapped / bare step, one process', 'x', Target(1.02, at_least=False))


def run(settings: Settings) -> list[Row]:
    """Scaling over two processes, and the wrapper's cost in one."""
    if settings.threads < 2 and not settings.quick:
        note = f'needs two threads, this run has {settings.threads}'
        return [row._replace(note=note) for row in (SCALING, WRAPPER)]
    batch = settings.batch_size or (4 if settings.quick else BATCH)
    batch += batch % 2  # two processes share it
    with Group(1, settings.threads, batch, settings) as solo:
        with Group(2, max(1, settings.threads // 2), batch // 2, settings) as pair:
            gradients = pair.ask('gradient')
            contenders: Mapping[str, Callable[[], Any]] = {
                'one': lambda: solo.ask('steps'),
                'two': lambda: pair.ask('steps'),
            }
            times = interleaved(contenders, settings.repeats, CPU)
        alone = solo.ask('wrapper')[0]
    unequal = len(set(gradients)) > 1
    seconds = times['one'].spread.median / _steps(settings)
    note = f'ssd_tiny, {batch} images a step, gloo; one process takes {seconds:.3g} s'
    return [
        SCALING._replace(
            ours=ratio(times['one'], times['two']),
            faults=[f'the processes step with different gradients: {gradients}'] if unequal else [],
            parity='both processes step with the same gradient, to the last bit',
            note=note,
        ),
        WRAPPER._replace(ours=alone, note='ssd_tiny, world size 1, gloo'),
    ]


class Group:
    """Processes that train together, each waiting for what it is asked.

    Args:
        size: How many.
        threads: Of torch in each.
        batch: Images a step in each.
        settings: Of this run.
    """

    def __init__(self, size: int, threads: int, batch: int, settings: Settings) -> None:
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context('spawn')
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(size):
            own, theirs = context.Pipe()
            member = Member(rank, size, threads, batch, port, settings)
            process = context.Process(target=_work, args=(member, theirs), daemon=True)
            process.start()
            theirs.close()  # so that a member that dies is noticed
            self.pipes.append(own)
            self.processes.append(process)

    def __enter__(self) -> 'Group':
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.terminate()
            process.join()

    def ask(self, what: str) -> list[Any]:
        """'steps', 'gradient' or 'wrapper'; waits for all answers."""
        for pipe in self.pipes:
            pipe.send(what)
        return [pipe.recv() for pipe in self.pipes]


class Member(NamedTuple):
    """One process of a group."""

    rank: int
    size: int
    threads: int
    batch: int
    port: int
    settings: Settings


def _work(member: Member, pipe: Connection) -> None:
    """Build the student as the runner does, then do what is asked."""
    torch.set_num_threads(member.threads)
    names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
    values = (member.rank, member.rank, member.size, '127.0.0.1', member.port)
    os.environ.setdefault('MKL_NUM_THREADS', str(member.threads))  # or MMEngine sets 1, with a warning
    os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)})
    cfg = Config.fromfile(CONFIG)
    cfg.optim_wrapper.optimizer.lr = 0.0
    work_dir = Path(member.settings.work_dir, 'ddp', f'{member.size}')
    runner = DetRunner(
        cfg.model,
        str(work_dir),
        launcher='pytorch',
        env_cfg={'mp_cfg': {'mp_start_method': 'spawn'}, 'dist_cfg': {'backend': 'gloo'}},
        randomness={'seed': 0},
        log_level='ERROR',
        default_scope='mmdet',
        experiment_name=f'ddp_{member.size}_{member.port}',
    )
    wrapped = _step(runner.model, cfg, _batch(member))
    steps = _steps(member.settings)
    while True:
        wanted = pipe.recv()
        if wanted == 'steps':
            for _ in range(steps):
                wrapped()
            pipe.send(None)
        elif wanted == 'gradient':
            pipe.send(with_gradient(wrapped)['gradient'])
        else:
            bare = MODELS.build(cfg.model)
            bare.load_state_dict(runner.model.module.state_dict())
            contenders = {'wrapped': wrapped, 'bare': _step(bare, cfg, _batch(member))}
            times: dict[str, Timing] = interleaved(
                contenders, steps * member.settings.repeats, CPU, warm_up=steps
            )
            cost: Spread = ratio(times['wrapped'], times['bare'])
            pipe.send(cost)


def _steps(settings: Settings) -> int:
    return QUICK_STEPS if settings.quick else STEPS


def _step(model: nn.Module, cfg: Config, data: dict[str, Any]) -> Callable[[], dict[str, float]]:
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    model.train()

    def run() -> dict[str, float]:
        step: Any = model
        step.train_step(data, optim_wrapper)
        return {}

    return run


def _batch(member: Member) -> dict[str, Any]:
    """Noise with boxes, other ones in each process."""
    generator = torch.Generator().manual_seed(member.rank)
    count = member.batch
    corners = torch.rand(count, 16, 2, generator=generator) * SIDE / 2
    sides = SIDE / 8 + torch.rand(count, 16, 2, generator=generator) * SIDE / 3
    valid = torch.arange(16).expand(count, 16) < OBJECTS
    shape = torch.full((count, 2), SIDE)
    gt = GroundTruth(
        img_id=torch.arange(count),
        ori_shape=shape,
        img_shape=shape,
        bboxes=torch.cat([corners, corners + sides], 2) * valid[..., None],
        labels=torch.randint(80, (count, 16), generator=generator) * valid,
        valid=valid,
    )
    inputs = torch.randint(256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return {'inputs': inputs, 'gt': gt}
