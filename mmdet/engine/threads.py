"""Warn where the threads of a run compete with other programs for the cores."""

import os
import time
from pathlib import Path

import torch

SECONDS = 0.5  # of watching
CROWDED = 1.25  # busy threads per core, ours and those of others, from which on it warns


def note_busy_cores() -> str:
    """Watch for half a second how much other programs compute; '' where there is room, and off Linux."""
    threads = torch.get_num_threads()
    if threads == 1 or not hasattr(os, 'sched_getaffinity'):
        return ''
    cores = os.sched_getaffinity(0)
    before = _busy_seconds(cores) - time.process_time()
    time.sleep(SECONDS)
    others = (_busy_seconds(cores) - time.process_time() - before) / SECONDS
    if min(threads, len(cores)) + others < CROWDED * len(cores):
        return ''
    return (
        f'other programs keep {others:.1f} of {len(cores)} cores busy: {threads} threads, which wait for one '
        'another, can be ten times slower than one. Put '
        f'OMP_NUM_THREADS={max(int(len(cores) - others), 1)} in front of the command'
    )


def _busy_seconds(cores: set[int]) -> float:
    """Read how long some cores, by number, have computed since the machine started, in seconds together."""
    ticks = 0
    for line in Path('/proc/stat').read_text().splitlines():
        name, *fields = line.split()
        if name in {f'cpu{core}' for core in cores}:
            user, nice, system, _idle, _waiting, *rest = map(int, fields[:8])
            ticks += user + nice + system + sum(rest)
    return ticks / os.sysconf('SC_CLK_TCK')
