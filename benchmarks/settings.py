"""Settings of all benchmarks."""

from pathlib import Path
from typing import NamedTuple

import torch

from mmdet.cli import usable_cores


class Settings(NamedTuple):
    """Parsed command line of `tools/benchmark.py`, and its defaults."""

    data_root: Path = Path('data/coco-mini')  # COCO's layout
    student: str = 'ssd300'  # a name of mmdet.commands.benchmark.STUDENTS
    teacher: str = 'online'  # of `distill`, or 'stored'
    device: torch.device = torch.device('cpu')
    threads: int = 1  # of torch in this process
    repeats: int = 5
    batch_size: int | None = None  # None: what the row is defined with
    amp: bool = False  # bfloat16 autocast
    channels_last: bool = False  # memory format of our student
    compile: bool = False  # our student and its teacher, with torch.compile
    workers: int = 16  # loader processes of the scaling row
    quick: bool = False  # small sizes, for tests: no figure of such a run means anything
    work_dir: Path = Path('work_dirs/benchmark')

    @property
    def on_gpu(self) -> bool:
        """Return whether the rows of a GPU are measured, else those of a CPU."""
        return self.device.type == 'cuda'

    @property
    def missing_cores(self) -> str:
        """Explain why loader workers cannot each have a core; '' where they can."""
        cores = usable_cores()
        return '' if cores >= self.workers else f'needs {self.workers} cores, here are {cores}'

    def autocast(self) -> torch.autocast:
        """Return the context that sets the precision of the contenders."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp)
