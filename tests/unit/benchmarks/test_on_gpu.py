"""The script for a short time on a GPU: what it says where it cannot measure."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.report import ROOT

PARTS = [
    'distill',
    'distill-stored',
    'kernels',
    'step',
    'infer',
    'step-lite',
    'infer-lite',
    'distill-tiny',
    'distill-lite',
    'profile',
]
PARTS += ['step-compiled', 'distill-compiled', 'end_to_end', 'tests']


def run(out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ['bash', ROOT / 'benchmarks' / 'on_gpu.sh'],
        env={
            **os.environ,
            'PYTHON': sys.executable,
            'OUT': str(out),
            'CUDA_VISIBLE_DEVICES': '',
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_a_gpu_it_says_so_and_stops(tmp_path: Path) -> None:
    # A torch without a driver; the real one takes seconds to import.
    (tmp_path / 'torch.py').write_text('class cuda:\n    def get_device_name(device): raise RuntimeError\n')
    done = run(tmp_path / 'out', DEVICE='cuda', PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ''
    assert len(done.stderr.splitlines()) == 1
    assert 'finds no GPU' in done.stderr
    assert not (tmp_path / 'out').exists()


def test_without_time_every_part_is_skipped(tmp_path: Path) -> None:
    (tmp_path / 'annotations').mkdir()
    done = run(tmp_path / 'out', DEVICE='cpu', BUDGET='0', DATA=str(tmp_path))
    assert done.returncode == 0, done.stderr
    _, *parts = (tmp_path / 'out' / 'summary.txt').read_text().splitlines()
    assert [line.split(maxsplit=1) for line in parts] == [
        [name, 'skipped for want of time'] for name in PARTS
    ]
