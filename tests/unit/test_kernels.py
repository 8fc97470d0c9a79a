"""The kernels for GPUs, in Triton's interpreter, which needs none."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from benchmarks.report import ROOT


@pytest.mark.long
@pytest.mark.skipif(not find_spec('triton'), reason='needs Triton, which comes with torch for CUDA')
def test_in_the_interpreter() -> None:
    """In a process of its own: Triton reads the variable when it is imported."""
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'tests/helpers/kernel_checks.py'],
        cwd=ROOT,
        env={**os.environ, 'TRITON_INTERPRET': '1', 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
