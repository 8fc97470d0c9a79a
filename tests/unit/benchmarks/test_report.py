"""Verdicts, table and CSV."""

import csv
from pathlib import Path

import pytest

from benchmarks.parity import differing_numbers
from benchmarks.report import ORDER, Row, Target, machine, performance_table, record, table_of, write_csv
from benchmarks.settings import Settings
from benchmarks.timing import Spread
from mmdet.commands.benchmark import BENCHMARKS
from tests.helpers.tiny_run import ROOT

ONE, TWO = Spread(1234.4, 1234.4, 1234.4), Spread(2.0, 1.5, 2.5)


@pytest.mark.parametrize(
    ('changes', 'verdict'),
    [
        ({}, 'not measured'),
        ({'ours': TWO}, ''),
        ({'ours': TWO, 'target': Target(1.9)}, 'met'),
        ({'ours': TWO, 'target': Target(2.1)}, 'not met'),
        ({'ours': TWO, 'target': Target(2.0, at_least=False)}, 'met'),
        ({'ours': TWO, 'target': Target(1.9, at_least=False)}, 'not met'),
        ({'ours': TWO, 'target': Target(1.2, of='ratio'), 'ratio': Spread(1.1, 1, 2)}, 'not met'),
        ({'ours': TWO, 'target': Target(1.2, of='ratio')}, 'not measured'),
        ({'ours': TWO, 'target': Target(1.9), 'faults': ['loss_cls is 1']}, 'parity failed'),
    ],
)
def test_verdicts(changes: dict, verdict: str) -> None:
    assert Row('step', 'a row', 's', **changes).verdict == verdict


def test_table_and_csv(tmp_path: Path) -> None:
    rows = [
        Row('step', 'plain', 's', Target(1.1, of='ratio'), TWO, ONE, None, TWO, {'ours': 12.4, 'x': 0.0}),
        Row('step', 'on a GPU', 'images/s', Target(1500), note='no GPU in this run'),
        Row('step', 'wrong', 's', ours=TWO, faults=['loss_cls is 1, the reference says 2'], parity='losses'),
    ]
    file = tmp_path / 'results' / 'step.csv'
    about = machine(Settings(threads=3)) | {'device': 'NVIDIA H200, one', 'commit': 'abc'}
    write_csv([record(row, about) for row in rows], file)
    written = list(csv.DictReader(file.open()))
    assert table_of(written).splitlines()[2:] == [
        '| plain | s | 2 [1.5, 2.5] | 1234 |  | 2 [1.5, 2.5] | ratio ≥ 1.1 | met | H200 | abc |',
        '| on a GPU | images/s | not measured |  |  |  | ours ≥ 1500 |  |  |  |',
        '| wrong | s | 2 [1.5, 2.5] |  |  |  |  | parity failed | H200 | abc |',
    ]
    assert [row['verdict'] for row in written] == ['met', 'not measured', 'parity failed']
    assert [row['ours_median'] for row in written] == ['2', '', '2']
    assert written[0]['peak_mib'] == 'ours 12'
    assert written[2]['parity'] == 'loss_cls is 1, the reference says 2'
    assert all(row['threads'] == '3' and row['torch'] for row in written)


def test_numbers_that_differ() -> None:
    ours = {'a': 1.00001, 'b': 2.0, 'c': float('nan'), 'd': 0.0}
    theirs = {'a': 1.0, 'b': 2.1, 'c': float('nan'), 'e': 0.0}
    named = [fault.split()[0] for fault in differing_numbers(ours, theirs, 1e-4)]
    assert named == ['only', 'only', 'b', 'c']
    assert len(differing_numbers({'a': 1.00001}, {'a': 1.0}, {'a': 1e-6})) == 1


def test_the_document_holds_what_was_measured() -> None:
    assert f'\n\n{performance_table()}\n\n' in (ROOT / 'benchmarks/notes.md').read_text()


def test_every_benchmark_has_its_place() -> None:
    of_order = {name.removesuffix('_ssdlite').removesuffix('_compact') for name in ORDER}
    gone, elsewhere = {'eval', 'startup'}, {'profile', 'ops'}
    assert of_order - gone | elsewhere == set(BENCHMARKS)
