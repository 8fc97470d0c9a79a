"""The comparison of finished units, run as a user runs it; all numbers worked out by hand."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from mmdet.analysis.runs import METRICS, THRESHOLDS
from mmdet.cli import run_main
from mmdet.commands import compare

TOOL = Path(__file__).parents[3] / 'tools/analysis/compare.py'
ERRORS = {
    'ap50': 0.4, 'cls': 0.05, 'loc': 0.06, 'both': 0.01, 'duplicate': 0.002, 'background': 0.03,
    'missed': 0.1, 'false_positive': 0.2, 'false_negative': 0.15,
}  # fmt: skip


def unit(row: str, seed: int, ap: float, **changes: Any) -> dict[str, Any]:
    """What a run leaves; the set holds no small objects."""
    teacher = {
        'arch': 'resnet18', 'crops': 100, 'top1': 0.9, 'top5': 1.0, 'confidence': 0.8, 'error': 0.1,
        'entropy': 0.5, 'near_one_hot': 0.02, 'loss': 0.4, 'temperature': 0.75, 'calibrated_error': 0.05,
        'calibrated_loss': 0.3, 'sha256': 'abc',
    }  # fmt: skip
    return {
        'format': 1,
        'row': row,
        'seed': seed,
        'data': 'fod',
        'config': 'configs_dev/ssd/tiny.py',
        'options': {'train_cfg.max_iters': 12},
        'train_images': 20,
        'val_images': 10,
        'iterations': 12,
        'batch_size': 4,
        'metrics': {**dict.fromkeys(METRICS, ap), 'AP_s': -1},
        'ap_per_iou': dict.fromkeys(THRESHOLDS, ap / 2),
        'errors': ERRORS,
        'calibration': {'detections': 50, 'confidence': 0.5, 'precision': 0.3, 'error': 0.2},
        'teacher': teacher if row in ('cls', 'all') else None,
        'losses': {'loss_cls': {'first': 5.0, 'last': 2.0}},
        'student': {'parameters': 2_500_000, 'gmacs': 0.4, 'latency_ms': 12.25 + seed},
        'training': {'images_per_second': 30.0, 'seconds': 100.0, 'memory_mb': 900},
        'command': 'python tools/analysis/run_rows.py configs_dev/ssd/tiny.py',
        'commit': '97d9300',
        'device': 'CPU',
        'torch': '2.15.0',
        **changes,
    }


def write(folder: Path, *units: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for one in units:
        (folder / f'{one["row"]}_seed{one["seed"]}.json').write_text(json.dumps(one))
    return folder


def three_seeds() -> list[dict[str, Any]]:
    plain = [unit('plain', seed, ap) for seed, ap in enumerate((0.20, 0.22, 0.24))]
    better = [unit('all', seed, ap) for seed, ap in enumerate((0.21, 0.25, 0.26))]
    return [*better, unit('dkd', 0, 0.2), unit('cls', 1, 0.21), *plain]


def compared(*folders: Path, out: Path | None = None) -> str:
    compare.main([*map(str, folders), *(['--out-dir', str(out)] if out else [])])
    return ((out or folders[0] / 'comparison') / 'comparison.md').read_text()


def line(text: str, title: str, part: str) -> str:
    """The line of a row in a part of the report."""
    lines = text.partition(f'### {part}\n')[2].partition('###')[0].splitlines()
    (found,) = [one for one in lines if one.startswith(f'| {title} |')]
    return found


def test_numbers_of_a_whole_comparison(tmp_path: Path) -> None:
    """Spread of 20, 22, 24 is 2; of 21, 25, 26 it is sqrt(7); of the differences 1, 3, 2 it is 1."""
    folder = write(tmp_path / 'rows', *three_seeds())
    done = subprocess.run(
        [sys.executable, str(TOOL), str(folder)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout == f'8 units in 1 section: {folder}/comparison/comparison.md\n'
    text = (folder / 'comparison' / 'comparison.md').read_text()

    rows = [one.split(' | ')[0] for one in text.split('### ')[1].splitlines() if one.startswith('| ')]
    assert rows == ['| row', '| ---', '| plain', '| +KDcls', '| all', '| dkd']
    plain, better = '| 22.0 ± 2.0 ', '| 24.0 ± 2.6 '
    assert line(text, 'plain', 'Metrics') == f'| plain | 0, 1, 2 {plain * 3}| - {plain * 8}|'
    assert line(text, 'all', 'Metrics').startswith(f'| all | 0, 1, 2 {better * 3}| - {better}')
    assert line(text, 'dkd', 'Metrics').startswith('| dkd | 0 | 20.0 | 20.0 ')
    cell = '| +2.0 ± 1.0 (3/3) '
    assert line(text, 'all', 'Difference to plain') == f'| all {cell * 3}| - {cell * 3}|'
    assert '- all: AP +2.0 ± 1.0, better in 3 of 3 pairs.\n' in text
    assert '- +KDcls: AP -1.0, better in 0 of 1 pair; one pair cannot tell a gain from chance.' in text
    assert 'no number rests on more than 3 pairs of runs' in text
    assert 'A row with one seed has no spread' in text
    assert line(text, 'all', 'AP by IoU threshold') == f'| all {"| 12.0 " * 10}|'
    errors = '| all | 40.0 | 5.0 | 6.0 | 1.0 | 0.2 | 3.0 | 10.0 | 20.0 | 15.0 |'
    assert line(text, 'all', 'Errors') == errors
    assert '| all | 50 | 50.0 | 30.0 | 0.200 ± 0.000 |' in text
    assert '| all | resnet18 | 90.0 | 80.0 | 0.100 | 0.500 | 2.0 | 0.75 |' in text
    assert line(text, 'all', 'Size and speed') == '| all | 2.50 | 0.40 | 13.2 | 30.0 | 100 | 900 |'
    assert '| all | 2 | 97d9300 | 2.15.0 | CPU | all_seed2.json |' in text
    assert text.count('    python tools/analysis/run_rows.py') == 1

    with (folder / 'comparison' / 'comparison.csv').open() as file:
        lines = {(one['row'], one['seed']): one for one in csv.DictReader(file)}
    assert len(lines) == 8
    assert float(lines['all', '1']['metrics.AP']) == 0.25
    assert float(lines['plain', '0']['ap_per_iou.0.50']) == 0.1
    assert lines['plain', '0']['teacher.arch'] == '' and lines['all', '0']['teacher.arch'] == 'resnet18'
    assert json.loads(lines['all', '1']['options']) == {'train_cfg.max_iters': 12}
    for picture in ('1_ap.png', '1_ap_per_iou.png', '1_errors.png'):
        assert f']({picture})' in text
        assert cv2.imread(str(folder / 'comparison' / picture)).std() > 10


def test_a_mean_within_the_spread_is_told(tmp_path: Path) -> None:
    """Differences 2 and -1: mean 0.5, spread 3 / sqrt(2)."""
    units = [
        unit(row, seed, ap)
        for row, aps in (('plain', (0.2, 0.2)), ('loc', (0.22, 0.19)))
        for seed, ap in enumerate(aps)
    ]
    text = compared(write(tmp_path / 'rows', *units))
    told = (
        'AP +0.5 ± 2.1, better in 1 of 2 pairs; the mean lies within one standard deviation of no difference.'
    )
    assert f'- +loc: {told}' in text
    assert 'No row has a teacher.' in text


def test_other_settings_get_a_section_of_their_own(tmp_path: Path) -> None:
    folders = [
        write(tmp_path / 'whole', unit('plain', 0, 0.2), unit('all', 0, 0.3)),
        write(
            tmp_path / 'quarter', unit('plain', 0, 0.1, train_images=5), unit('all', 0, 0.05, train_images=5)
        ),
        write(
            tmp_path / 'long',
            unit('all', 0, 0.4, iterations=24, device='GPU'),
            unit('all', 1, 0.4, iterations=24),
        ),
    ]
    text = compared(*folders, out=tmp_path / 'out')
    _, *sections = text.split('\n## ')
    assert len(sections) == 3 and 'must not be compared' in text
    (quarter,) = [one for one in sections if '\n\n5 training' in one]
    assert '- all: AP -5.0, better in 0 of 1 pair' in quarter
    (long,) = [one for one in sections if '24 iterations' in one]
    assert 'there is no plain row' in long and 'several devices' in long
    assert sorted(file.name for file in (tmp_path / 'out').glob('*_ap.png')) == [
        '1_ap.png',
        '2_ap.png',
        '3_ap.png',
    ]


def test_rows_without_a_common_seed(tmp_path: Path) -> None:
    text = compared(write(tmp_path / 'rows', unit('plain', 0, 0.2), unit('all', 1, 0.3)))
    assert '- all: no seed in common with plain.' in text
    assert line(text, 'all', 'Difference to plain') == f'| all {"| - " * 7}|'


def test_a_folder_given_twice_counts_once(tmp_path: Path) -> None:
    folder = write(tmp_path / 'rows', unit('plain', 0, 0.2))
    text = compared(folder, tmp_path / 'rows' / '..' / 'rows')
    assert '| plain | 0 | 20.0 |' in text
    assert compared(folder) == text  # nor is what it has written taken for units


@pytest.mark.parametrize(
    'content, told',
    [
        ('{', 'not a JSON file'),
        ('[]', "found 'list'"),
        ('{"crops": 3}', 'found None'),
        (json.dumps(unit('all', 0, 0.2, format=2)), 'needs "format": 1, found 2'),
        (json.dumps(unit('all', 0, 0.2, commit=None)), 'commit is None'),
        (json.dumps(unit('all', 0, 0.2, errors={'ap50': 0.3})), 'errors.cls is None'),
        (json.dumps(unit('all', 0, 0.2, training=None)), 'training.images_per_second is None'),
        (json.dumps(unit('all', 0, float('nan'))), 'metrics.AP is nan'),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: str, told: str) -> None:
    folder = write(tmp_path / 'rows', unit('plain', 0, 0.2))
    (folder / 'report.json').write_text(content)
    with pytest.raises(ValueError, match=r'report\.json is no') as error:
        compared(folder)
    assert told in str(error.value) and 'move it' in str(error.value)
    assert not (folder / 'comparison').exists()


def test_a_user_gets_the_error_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / 'empty')
    with pytest.raises(SystemExit, match='1'):
        run_main(lambda: compare.main([str(folder)]))
    assert capsys.readouterr().err.startswith(f'error: no *.json in {folder}')


def test_units_that_cannot_stand_side_by_side(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no folder'):
        compared(tmp_path / 'nowhere')
    one, two = (write(tmp_path / name, unit('plain', 0, 0.2)) for name in ('one', 'two'))
    with pytest.raises(
        ValueError, match=r'one/plain_seed0\.json and .*two/plain_seed0\.json are the same row'
    ):
        compared(one, two)
    other = unit('all', 1, 0.2)
    other['teacher']['arch'] = 'resnext101'
    folder = write(tmp_path / 'teachers', unit('all', 0, 0.2), other)
    with pytest.raises(ValueError, match=r'all_seed0\.json has the teacher resnet18, .* resnext101'):
        compared(folder)
