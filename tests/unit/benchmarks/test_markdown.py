"""The table in the document is that of the result files."""

from benchmarks.markdown import ORDER, performance_table
from mmdet.commands.benchmark import BENCHMARKS
from tests.helpers.tiny_run import ROOT


def test_the_document_holds_what_was_measured() -> None:
    assert f'\n\n{performance_table()}\n\n' in (ROOT / 'docs/performance.md').read_text()


def test_every_benchmark_has_its_place() -> None:
    assert {*ORDER, 'profile'} == set(BENCHMARKS)  # whose tables of kernels stand in no document
