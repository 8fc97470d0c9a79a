"""Files of runs: read, refused, grouped."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmdet.analysis import runs
from mmdet.analysis.runs import Run, describe_commit, group_runs, half_interval, read_result, read_runs
from mmdet.cli import run_main
from mmdet.commands import compare
from tests.unit.analysis.test_comparison import TEACHER, result, write


@pytest.mark.parametrize(
    'content, told',
    [
        ('{', 'Expecting property name'),
        ('[]', "'list' object has no attribute"),
        ('{"crops": 3}', 'it has no row, seed, data'),
        (json.dumps(result('all', 0, 0.2, format=2)), 'its format is 2, not 1'),
        (json.dumps(result('all', 0, 0.2, command=None)), 'it has no command'),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: str, told: str) -> None:
    folder = write(tmp_path / 'rows', result('plain', 0, 0.2))
    (folder / 'report.json').write_text(content)
    with pytest.raises(ValueError, match=r'report\.json is not a result') as error:
        compare.main([str(folder)])
    assert told in str(error.value) and 'move it' in str(error.value)
    assert not (folder / 'comparison').exists()


def test_a_user_gets_the_error_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match='1'):
        run_main(lambda: compare.main([str(tmp_path / 'nowhere')]))
    assert capsys.readouterr().err.startswith(f'error: no *.json in {tmp_path / "nowhere"}')


@pytest.mark.parametrize(
    'other', [result('all', 0, 0.3), result('all', 1, 0.2, teacher={**TEACHER, 'arch': 'resnext101'})]
)
def test_runs_that_cannot_stand_side_by_side(tmp_path: Path, other: dict[str, Any]) -> None:
    one, two = write(tmp_path / 'one', result('all', 0, 0.2)), write(tmp_path / 'two', other)
    with pytest.raises(ValueError, match=r'one/all_seed0\.json and .*two/all_seed.\.json are of one row'):
        group_runs(read_runs([one, two]))


def test_a_result_of_other_settings_is_refused(tmp_path: Path) -> None:
    settings = {'row': 'plain', 'options': {'sizes': (1, 2)}}
    file = tmp_path / 'plain.json'
    file.write_text(json.dumps({**settings, 'AP': 0.5}))
    assert read_result(file, settings)['AP'] == 0.5
    with pytest.raises(
        ValueError, match=r'plain\.json was made with row plain, not cls: choose another folder'
    ):
        read_result(file, {**settings, 'row': 'cls'})


def test_runs_of_other_annotations_or_precision_stand_apart() -> None:
    """One of an earlier commit, which tells neither, stands with the first."""
    known = {'amp': False, 'annotations.train': 'a', 'annotations.test': 'b'}
    made = [
        ('plain', known),
        ('cls', {}),
        ('all', known),
        ('all', {**known, 'amp': True}),
        ('all', {**known, 'annotations.test': 'c'}),
    ]
    unlike = [
        Run(Path(row), result(row, 0, 0.2) | {'teacher.arch': None} | settings) for row, settings in made
    ]
    groups = group_runs(unlike)
    assert [list(rows) for _, rows in groups] == [['plain', '+KDcls', 'all'], ['all'], ['all']]
    assert groups[1][0].items() > {**known, 'amp': True}.items()


def test_rows_come_in_the_order_of_the_paper() -> None:
    unordered = [
        Run(Path(row), result(row, seed, 0.2) | {'teacher.arch': None})
        for row, seed in (('all', 1), ('all', 0), ('own', 0), ('plain', 0))
    ]
    ((_, rows),) = group_runs(unordered)
    assert {row: list(seeds) for row, seeds in rows.items()} == {'plain': [0], 'all': [0, 1], 'own': [0]}


def test_a_tree_without_its_git_folder_has_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, 'ROOT', runs.ROOT / 'docs')  # not that of the folder above either
    assert describe_commit() == 'unknown'


def test_the_interval_of_a_mean() -> None:
    """Of 1, 2, 3: t is 4.303 at 2 degrees of freedom, the standard deviation 1; from 11 values on t stays."""
    assert half_interval([1, 2, 3]) == pytest.approx(4.303 / 3**0.5)
    assert half_interval([1.0]) == half_interval([]) == 0
    assert half_interval([0, 1] * 20) == pytest.approx(2.262 * (10 / 39) ** 0.5 / 40**0.5)
