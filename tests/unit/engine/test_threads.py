"""The warning of busy cores."""

import re
from pathlib import Path

import pytest
import torch

from mmdet.engine.threads import SECONDS, note_busy_cores


@pytest.mark.parametrize(
    ('threads', 'cores', 'others', 'said'),
    [
        (2, 2, 0.4, ''),
        (2, 2, 1.0, 'keep 1.0 of 2 cores busy: 2 threads, .* OMP_NUM_THREADS=1 '),
        (1, 2, 2.0, ''),
        (4, 2, 0.0, ''),  # as it was told
        (8, 16, 9.0, ''),
        (16, 16, 9.0, 'OMP_NUM_THREADS=7 '),
    ],
)
def test_threads_beside_other_programs(monkeypatch, threads, cores, others, said):
    ticks = []

    def stat(_):
        ticks.append(others * SECONDS * 100 * len(ticks))
        return f'cpu  9 9 9 9 9 9 9 9\ncpu0 {ticks[-1]:.0f} 2 3 99 5 0 0 0 0 0\ncpu99 9 9 9 9 9 9 9 9\nintr 9'

    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    monkeypatch.setattr('os.sched_getaffinity', lambda _: set(range(cores)))
    monkeypatch.setattr('os.sysconf', lambda _: 100)
    monkeypatch.setattr(Path, 'read_text', stat)
    monkeypatch.setattr('time.sleep', lambda _: None)
    monkeypatch.setattr('time.process_time', lambda: 7.0)
    found = note_busy_cores()
    assert re.search(said, found) if said else found == ''
