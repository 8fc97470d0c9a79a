import json
import runpy
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'misc' / 'make_synthetic.py'


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
        runpy.run_path(str(TOOL), run_name='__main__')
        return capsys.readouterr().out

    return run


def test_writes_a_set_once(run, tmp_path):
    arguments = tmp_path / 'set', '--train', 3, '--val', 2, '--size', 96
    assert f'--data-root {tmp_path / "set"}' in run(*arguments)
    assert 'kept' in run(*arguments)
    for split, count in (('train2017', 3), ('val2017', 2)):
        assert len(list((tmp_path / 'set' / split).glob('*.jpg'))) == count
        annotations = json.loads((tmp_path / 'set' / 'annotations' / f'instances_{split}.json').read_text())
        assert len(annotations['images']) == count


def test_says_what_is_wrong_without_a_traceback(run, tmp_path):
    run(tmp_path, '--train', 1, '--val', 1, '--size', 96)
    with pytest.raises(SystemExit, match='another data set'):
        run(tmp_path, '--train', 1, '--val', 1, '--size', 96, '--seed', 1)
