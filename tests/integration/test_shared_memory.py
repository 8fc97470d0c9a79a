"""A /dev/shm that is too small for a batch, as in a container without --ipc=host, ends a run."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmdet.checkpoint.io import save_checkpoint
from mmdet.registry import MODELS
from tests.helpers.tiny_run import CLASSES, PLAIN, ROOT, as_arguments, options_of, small_config, write_sets

SMALL = ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"', 'sh']
LIMIT = 180  # seconds from the start on, of which a tenth does on an idle machine


@pytest.fixture
def checkpoint(tiny_coco: Any, tmp_path: Path) -> Path:
    """What a training on `tmp_path/set` saves, untrained; skipped where `SMALL` is not allowed."""
    if not shutil.which('unshare'):
        pytest.skip('needs unshare of util-linux')
    tried = subprocess.run([*SMALL, 'true'], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f'a mount namespace with a /dev/shm of its own is not allowed: {tried.stderr.strip()}')
    cfg = small_config(write_sets(tiny_coco, tmp_path / 'set'), tmp_path / 'none')
    content = {
        'meta': {'dataset_meta': {'classes': CLASSES}},
        'state_dict': MODELS.build(cfg.model).state_dict(),
    }
    save_checkpoint(content, tmp_path / 'ssd.pth')
    return tmp_path / 'ssd.pth'


@pytest.mark.long
@pytest.mark.parametrize('tool', ['train', 'test'])
def test_a_run_without_shared_memory_ends(tmp_path, checkpoint, tool):
    loader = f'{tool}_dataloader'
    options = options_of(**{f'{loader}.num_workers': 2, f'{loader}.batch_size': 3})  # 3 photos: 83 kB
    words = [str(PLAIN), *[str(checkpoint)] * (tool == 'test'), '--data-root', str(tmp_path / 'set')]
    with (tmp_path / 'log').open('w') as log:
        process = subprocess.Popen(
            [*SMALL, sys.executable, str(ROOT / f'tools/{tool}.py'), *words, *as_arguments(options)],
            cwd=tmp_path,
            env={**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        status = process.wait(LIMIT)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with its workers
        process.wait()
    said = (tmp_path / 'log').read_text()
    assert status == 1, said
    assert 'docker run --ipc=host, or --shm-size=8g' in said.split('error: ')[-1]
