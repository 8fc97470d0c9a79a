"""Each benchmark runs in its small size, and a failed parity check shows."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import ddp
from benchmarks.reference import ssd_loss
from benchmarks.report import Row
from mmdet.commands import benchmark
from mmdet.commands.benchmark import main
from tests.helpers.forked import CONTEXT, start_server
from tests.helpers.tiny_run import ROOT


@pytest.fixture
def data_root(tiny_coco: Callable[..., Path], tmp_path: Path) -> Path:
    """A small set under the names of COCO's files."""
    root = tmp_path / 'set'
    for split in ('train2017', 'val2017'):
        tiny_coco(root=root, split=split, images=5)
        (root / f'annotations/{split}.json').rename(root / f'annotations/instances_{split}.json')
    return root


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def arguments(name: str, root: Path, tmp_path: Path) -> list[str]:
    typed = [name, '--quick', '--repeats', '2', '--batch-size', '1', '--threads', '1', '--device', 'cpu']
    typed += ['--workers', '999']  # more cores than there are: not measured
    paths = {'--data-root': root, '--work-dir': tmp_path / 'work', '--out': tmp_path / 'out.csv'}
    return [*typed, *(str(part) for pair in paths.items() for part in pair)]


def rows_of(tmp_path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((tmp_path / 'out.csv').open()))


@pytest.mark.parametrize(
    ('name', 'measured', 'unmeasured'),
    [('data', 3, 1), ('step', 1, 1), ('distill', 2, 1), ('infer', 4, 2), ('eval', 1, 0)],
)
def test_small_run(
    name: str,
    measured: int,
    unmeasured: int,
    data_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(arguments(name, data_root, tmp_path))
    rows = rows_of(tmp_path)
    assert [row['benchmark'] for row in rows] == [name] * (measured + unmeasured)
    assert [row['verdict'] for row in rows].count('not measured') == unmeasured
    for row in rows:
        if row['verdict'] != 'not measured':
            assert float(row['ours_median']) > 0
            assert float(row['reference_median']) > 0
            assert row['mode'] == 'quick'
    printed = capsys.readouterr().out
    assert all(row['row'] in printed for row in rows)
    assert 'equal' in printed


def test_each_benchmark_writes_its_file_before_the_next_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(name: str, settings: object) -> list[Row]:
        if name == 'infer':
            raise RuntimeError('stop')
        return [Row(name, f'row of {name}', 's')]

    monkeypatch.setattr(benchmark, 'measure', measure)
    monkeypatch.setattr(benchmark, 'RESULTS', tmp_path)
    with pytest.raises(RuntimeError, match='stop'):
        main(['all', '--threads', '1'])
    assert {file.stem for file in tmp_path.iterdir()} == {'data', 'step', 'distill', 'end_to_end'}
    main(['eval', '--threads', '1'])
    assert 'row of eval' in (tmp_path / 'eval.csv').read_text()
    assert 'row of eval' in capsys.readouterr().out


def test_our_student_in_bfloat16_with_the_channels_last(data_root: Path, tmp_path: Path) -> None:
    main([*arguments('step', data_root, tmp_path), '--amp', '--channels-last'])
    assert rows_of(tmp_path)[0]['mode'] == 'quick amp channels_last'


def test_a_deviation_fails(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ssd_loss, 'NEGATIVES_PER_POSITIVE', 2)
    assert main(arguments('step', data_root, tmp_path)) == 1
    assert rows_of(tmp_path)[0]['verdict'] == 'parity failed'
    printed = capsys.readouterr()
    assert 'PARITY FAILED: loss_cls is ' in printed.out
    assert 'parity failed: plain step, CPU' in printed.err


def test_startup(data_root: Path, tmp_path: Path) -> None:
    """From the command line."""
    typed = arguments('startup', data_root, tmp_path)
    typed[typed.index('--repeats') + 1] = '1'
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools/benchmark.py'), *typed],
        cwd=tmp_path,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {row['row']: float(row['ours_median']) for row in rows_of(tmp_path)}
    assert found['tools/train.py to its first step'] > 0
    assert 0 < found['memory of a loader worker of its own'] < 150


def test_two_processes(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked from a process that has imported everything, where a measurement starts them afresh."""
    start_server()
    monkeypatch.setattr(ddp.multiprocessing, 'get_context', lambda method: CONTEXT)
    typed = arguments('ddp', data_root, tmp_path)
    typed[typed.index('--repeats') + 1], typed[typed.index('--batch-size') + 1] = '1', '4'
    main(typed)
    assert all(float(row['ours_median']) > 0 for row in rows_of(tmp_path))


def test_end_to_end(data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(arguments('end_to_end', data_root, tmp_path))
    (row,) = rows_of(tmp_path)
    assert float(row['ours_median']) > 0
    assert 'images/s from files' in row['note']
    typed = arguments('end_to_end', data_root, tmp_path)
    typed.remove('--quick')
    main(typed)
    assert rows_of(tmp_path)[0]['verdict'] == 'not measured'
    assert 'no GPU in this run' in capsys.readouterr().out
