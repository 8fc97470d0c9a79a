"""Each benchmark runs in its small size, and a failed parity check shows."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.reference import ssd_loss
from benchmarks.report import Row
from mmdet.commands import benchmark
from mmdet.commands.benchmark import main

MEASURED = {  # rows that are measured, and rows that this machine cannot measure
    'data': (2, 1),
    'step': (1, 1),
    'step --student ssdlite --batch-size 2': (1, 1),  # its last level is one cell: batch norm needs two
    'distill': (3, 1),
    'distill --student ssd_tiny --teacher stored': (3, 1),
    'end_to_end': (1, 0),
    'infer': (4, 2),
    'infer --student ssdlite': (4, 1),
    'profile': (2, 0),
    'ops': (15, 0),
}
LONG = (
    'step --student ssdlite --batch-size 2',
    'distill --student ssd_tiny --teacher stored',
    'profile',
)
ALONE = ('end_to_end', 'profile', 'ops')  # without a baseline


@pytest.fixture
def typed(tiny_coco: Callable[..., Path], tmp_path: Path) -> list[str]:
    """Options of a small run on a small set that has the names of COCO's files."""
    torch.set_num_threads(1)
    root = tmp_path / 'set'
    for split in ('train2017', 'val2017'):
        tiny_coco(root=root, split=split, images=5)
        (root / f'annotations/{split}.json').rename(root / f'annotations/instances_{split}.json')
    typed = ['--quick', '--repeats', '1', '--batch-size', '1', '--threads', '1', '--device', 'cpu']
    typed += ['--workers', '999']  # more cores than there are: not measured
    return [
        *typed,
        '--data-root',
        f'{root}',
        '--work-dir',
        f'{tmp_path}/work',
        '--out',
        f'{tmp_path}/out.csv',
    ]


def rows_of(tmp_path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((tmp_path / 'out.csv').open()))


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in MEASURED]
)
def test_small_run(name, typed, tmp_path, capsys) -> None:
    name, *options = name.split()
    assert main([name, *typed, *options]) == 0
    rows, printed = rows_of(tmp_path), capsys.readouterr().out
    unmeasured = [row for row in rows if row['verdict'] == 'not measured']
    assert (len(rows) - len(unmeasured), len(unmeasured)) == MEASURED[' '.join([name, *options])]
    for row in rows:
        assert row['row'] in printed
        assert (row['benchmark'], row['mode']) == (name, 'quick')
        assert row in unmeasured or float(row['ours_median']) > 0 or 'waits' in row['row']
        alone = name in ALONE or options or 'cheap' in row['row']
        assert row['reference_median'] or row in unmeasured or alone
    assert any(row['parity'] for row in rows) == (name not in ALONE)


def test_each_benchmark_writes_its_file_before_the_next_begins(tmp_path, monkeypatch, capsys) -> None:
    def measure(name: str, settings: object) -> list[Row]:
        if name == 'infer':
            raise RuntimeError('stop')
        return [Row(name, f'row of {name}', 's')]

    monkeypatch.setattr(benchmark, 'measure', measure)
    monkeypatch.setattr(benchmark, 'RESULTS', tmp_path)
    with pytest.raises(RuntimeError, match='stop'):
        main(['all', '--threads', '1'])
    assert {file.stem for file in tmp_path.iterdir()} == {'data', 'step', 'distill', 'end_to_end'}
    main(['ops', '--threads', '1'])
    assert 'row of ops' in (tmp_path / 'ops.csv').read_text()
    assert 'row of ops' in capsys.readouterr().out


def test_a_deviation_fails(typed, tmp_path, monkeypatch, capsys) -> None:
    """Also of a student in bfloat16 with the channels last: parity is checked in float32."""
    monkeypatch.setattr(ssd_loss, 'NEGATIVES_PER_POSITIVE', 2)
    assert main(['step', *typed, '--amp', '--channels-last']) == 1
    (row, _) = rows_of(tmp_path)
    assert (row['verdict'], row['mode']) == ('parity failed', 'quick amp channels_last')
    printed = capsys.readouterr()
    assert 'parity failed: plain step, CPU: gradient is ' in printed.err
    assert '; loss_cls is ' in printed.err
    assert 'loss_bbox is ' not in printed.err


def test_what_the_machine_lacks_is_not_measured(typed, tmp_path, capsys) -> None:
    """In its full size."""
    typed.remove('--quick')
    assert main(['end_to_end', *typed]) == 0
    assert rows_of(tmp_path)[0]['verdict'] == 'not measured'
    assert 'no GPU in this run' in capsys.readouterr().out
