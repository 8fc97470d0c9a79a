"""The table in the document is that of the result files, and Markdown's layout."""

from pathlib import Path

import pytest

from benchmarks import markdown
from benchmarks.report import Row, Target, write_csv
from benchmarks.timing import Spread
from mmdet.commands.benchmark import BENCHMARKS
from tests.helpers.tiny_run import ROOT


def test_the_document_holds_what_was_measured() -> None:
    assert '\n'.join(markdown.lines()) in (ROOT / 'docs/performance.md').read_text()


def test_every_benchmark_has_its_place() -> None:
    assert {*markdown.ORDER, 'profile'} == set(BENCHMARKS)  # whose tables of kernels stand in no document


def test_a_table_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    measured = Row(
        'step', 'a', 's', Target(2, of='ratio'), ours=Spread(1234.5, 1, 2000), ratio=Spread(3, 3, 3)
    )
    about = {'device': 'NVIDIA H200, one', 'commit': 'abc'}
    write_csv([measured, Row('step', 'b', 's', Target(1))], about, tmp_path / 'step.csv')
    new = markdown.lines(tmp_path)
    assert new[2:] == [
        '| a | s | 1234 [1, 2000] |  |  | 3 | ratio ≥ 2 | met | H200 | abc |',
        '| b | s | not measured |  |  |  | ours ≥ 1 |  |  |  |',
    ]
    file = tmp_path / 'some.md'
    file.write_text('\n'.join(['before', '', *new[:2], '| old |', '', '| another |', 'after']) + '\n')
    markdown.replace(file, new)
    assert file.read_text().splitlines() == ['before', '', *new, '', '| another |', 'after']
    file.write_text('no table')
    with pytest.raises(ValueError, match=r'some\.md holds no table'):
        markdown.replace(file, new)
