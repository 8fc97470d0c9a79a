"""Importing the package."""

import subprocess
import sys
from pathlib import Path

from tests.helpers.golden_model import ROOT


def test_a_second_mmdet_is_an_error_that_names_both(tmp_path: Path) -> None:
    (tmp_path / 'mmdet').mkdir()
    (tmp_path / 'mmdet' / '__init__.py').touch()
    code = f'import sys; sys.path[:0] = [{str(ROOT)!r}]; sys.path.append({str(tmp_path)!r}); import mmdet'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    message = run.stderr.splitlines()[-1]
    assert message.startswith('ImportError: two packages are named mmdet')
    assert str(ROOT / 'mmdet') in message
    assert str(tmp_path / 'mmdet') in message


def test_importing_the_package_alone_is_light() -> None:
    code = 'import sys, mmdet; print(sorted({"torch", "cv2", "mmengine"} & set(sys.modules)))'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == '[]'
