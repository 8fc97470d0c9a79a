"""tools/quickstart.sh in its short form."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.helpers.golden_model import ROOT


@pytest.mark.long
def test_the_short_form_ends_with_a_table_pictures_and_the_next_command(tmp_path: Path) -> None:
    folder = tmp_path / 'quickstart'
    environment = {
        **os.environ,
        'QUICKSTART_STEPS': '3',
        'QUICKSTART_DIR': str(folder),
        'PYTHON': sys.executable,
        'VIRTUAL_ENV': sys.prefix,  # whatever runs the tests is the active environment
    }
    run = subprocess.run(
        ['bash', str(ROOT / 'tools' / 'quickstart.sh')],
        capture_output=True, text=True, check=False, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    for words in (
        '| plain ',
        '| distilled ',
        '| difference ',
        'The teacher names',
        'Next:',
        'tools/image_demo.py',
    ):
        assert words in run.stdout
    for name in ('detections.png', 'teacher_sees.png', 'plain/curves.png', 'distilled/curves.png'):
        assert cv2.imread(str(folder / name)) is not None
    log = (folder / 'distilled.log').read_text()
    assert 'loss_kd_cls' in log
    assert 'loss_kd_loc' in log
    assert 'loss_kd' not in (folder / 'plain.log').read_text()
