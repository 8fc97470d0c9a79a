"""tools/quickstart.sh in its short form."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.helpers.golden_model import ROOT

SMALL = 'configs_dev/ssdlite/ssdlite_efficientnet_lite0_small_cls_loc.py'


FAKE_PYTHON = """#!/bin/sh
echo "$@" >> {log}
if [ "$1" = - ]; then cat > {script}; printf 'model.arch=resnet18\\n\\n1\\n'; fi
"""


def test_the_teacher_gets_the_input_size_and_the_classes_of_the_student(tmp_path: Path) -> None:
    log, python = tmp_path / 'log', tmp_path / 'python'
    python.write_text(FAKE_PYTHON.format(log=log, script=tmp_path / 'script'))
    python.chmod(0o755)
    environment = {**os.environ, 'QUICKSTART_DIR': str(tmp_path), 'PYTHON': str(python), 'VIRTUAL_ENV': 'any'}
    options = ['input_size=192', 'lr=0.1', "classes=['disk']"]
    command = ['bash', str(ROOT / 'tools/quickstart.sh'), '--student', SMALL, *options]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    (teacher,) = [line for line in log.read_text().splitlines() if line.startswith('tools/train.py')]
    assert {'input_size=192', "classes=['disk']"} <= set(teacher.split())
    assert 'lr=0.1' not in teacher


@pytest.mark.long
@pytest.mark.parametrize('options', [[], ['--student', SMALL]])
def test_the_short_form_ends_with_a_table_pictures_and_the_next_command(
    options: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / 'quickstart'
    environment = {
        **os.environ,
        'QUICKSTART_STEPS': '3',
        'QUICKSTART_DIR': str(folder),
        'PYTHON': sys.executable,
        'VIRTUAL_ENV': sys.prefix,  # whatever runs the tests is the active environment
    }
    run = subprocess.run(
        ['bash', str(ROOT / 'tools' / 'quickstart.sh'), *options],
        capture_output=True, text=True, check=False, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    for words in ('plain, seed 0: AP ', 'all, seed 0: AP ', '### Difference to plain', 'tools/image_demo.py'):
        assert words in run.stdout
    for name in ('teacher_sees.png', 'rows/work/all_seed0/curves.png'):
        assert cv2.imread(str(folder / name)) is not None
    assert (folder / 'rows/comparison/comparison.html').read_text().count('<svg') == 4
    plain, distilled = (folder / f'rows/work/{row}_seed0/train.log' for row in ('plain', 'all'))
    assert 'loss_kd_cls' in distilled.read_text()
    assert 'loss_kd_loc' in distilled.read_text()
    assert 'loss_kd' not in plain.read_text()
