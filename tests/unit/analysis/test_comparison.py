"""The comparison of rows; all numbers worked out by hand, and those of the committed results."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from mmdet.analysis.judge import METRICS, THRESHOLDS
from mmdet.commands.compare import main
from tests.helpers.tiny_run import ROOT

ERRORS = {
    'ap50': 0.4, 'cls': 0.05, 'loc': 0.06, 'both': 0.01, 'duplicate': 0.002, 'background': 0.03,
    'missed': 0.1, 'false_positive': 0.2, 'false_negative': 0.15,
}  # fmt: skip
TEACHER = {
    'arch': 'resnet18', 'crops': 100, 'top1': 0.9, 'confidence': 0.8, 'error': 0.1, 'entropy': 0.5,
    'near_one_hot': 0.02, 'temperature': 0.75,
}  # fmt: skip


def result(row: str, seed: int, ap: float, **changes: Any) -> dict[str, Any]:
    """What a run leaves; the set holds no small objects."""
    return {
        'format': 1, 'row': row, 'seed': seed, 'data': 'fod', 'config': 'configs_dev/ssd/tiny.py',
        'options': {'train_cfg.max_iters': 12},
        'train_images': 20, 'val_images': 10, 'iterations': 12, 'batch_size': 4,
        'metrics': {**dict.fromkeys(METRICS, ap), 'AP_s': -1},
        'ap_per_iou': dict.fromkeys(THRESHOLDS, ap / 2),
        'errors': ERRORS,
        'calibration': {'detections': 50, 'confidence': 0.5, 'precision': 0.3, 'error': 0.2},
        'teacher': TEACHER if row in ('cls', 'all') else None,
        'student': {'parameters': 2_500_000, 'gmacs': 0.4, 'ms_per_image': 12.25 + seed},
        'training': {'images_per_second': 30.0, 'seconds': 100.0, 'memory_mb': 900},
        'command': 'python tools/analysis/run_rows.py configs_dev/ssd/tiny.py',
        'commit': '97d9300', 'device': 'CPU', 'torch': '2.15.0',
        **changes,
    }  # fmt: skip


def write(folder: Path, *results: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for one in results:
        (folder / f'{one["row"]}_seed{one["seed"]}.json').write_text(json.dumps(one))
    return folder


def line(text: str, title: str, part: str) -> str:
    """The line of a row in a part of the report."""
    lines = text.partition(f'### {part}\n')[2].partition('###')[0].splitlines()
    (found,) = [one for one in lines if one.startswith(f'| {title} |')]
    return found


def test_numbers_of_a_whole_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Spread of 20, 22, 24 is 2; of 21, 25, 26 it is sqrt(7); of the differences 1, 3, 2 it is 1."""
    plain = [result('plain', seed, ap) for seed, ap in enumerate((0.20, 0.22, 0.24))]
    better = [result('all', seed, ap) for seed, ap in enumerate((0.21, 0.25, 0.26))]
    folder = write(tmp_path / 'rows', *better, result('dkd', 0, 0.2), result('cls', 1, 0.21), *plain)
    main([str(folder), str(tmp_path / 'rows' / '..' / 'rows')])  # a folder that is given twice counts once
    out = folder / 'comparison'
    text = (out / 'comparison.md').read_text()
    assert capsys.readouterr().out == f'{text}\nwritten to {out}/comparison.html\n'

    rows = [one.split(' | ')[0] for one in text.split('### Metrics')[1].splitlines() if one.startswith('| ')]
    assert rows[:6] == ['| row', '| ---', '| plain', '| +KDcls', '| all', '| dkd']
    cells = {'plain': '| 22.0 ± 2.0 ', 'all': '| 24.0 ± 2.6 '}
    for row, cell in cells.items():
        assert line(text, row, 'Metrics') == f'| {row} | 0, 1, 2 {cell * 3}| - {cell * 8}|'
    assert line(text, 'dkd', 'Metrics').startswith('| dkd | 0 | 20.0 | 20.0 ')
    cell = '| +2.0 ± 1.0 (3/3) '
    assert line(text, 'all', 'Difference to plain') == f'| all {cell * 3}| - {cell * 3}|'
    assert line(text, '+KDcls', 'Difference to plain').startswith('| +KDcls | -1.0 (0/1) ')
    assert 'No significance is claimed' in text and 'A row with one seed has no spread' in text
    assert line(text, 'all', 'AP by IoU threshold') == f'| all | 0, 1, 2 {"| 12.0 ± 1.3 " * 10}|'
    errors = '| dkd | 0 | 40.0 | 5.0 | 6.0 | 1.0 | 0.2 | 3.0 | 10.0 | 20.0 | 15.0 |'
    assert line(text, 'dkd', 'Errors') == errors
    assert line(text, 'dkd', 'Calibration') == '| dkd | 0 | 50 | 50.0 | 30.0 | 0.200 |'
    assert line(text, '+KDcls', 'Teachers') == '| +KDcls | 1 | 90.0 | 80.0 | 0.100 | 0.500 | 2.0 | 0.75 |'
    assert line(text, 'dkd', 'Size and speed') == '| dkd | 0 | 2.50 | 0.40 | 12.2 | 30.0 | 100 | 900 |'
    assert '| all_seed2.json | 97d9300 | 2.15.0 | CPU | resnet18 |' in text
    assert text.count('    python tools/analysis/run_rows.py') == 1

    with (out / 'comparison.csv').open() as file:
        lines = {(one['row'], one['seed']): one for one in csv.DictReader(file)}
    assert len(lines) == 8
    assert float(lines['all', '1']['metrics.AP']) == 0.25
    assert lines['plain', '0']['teacher.arch'] == '' and lines['all', '0']['teacher.arch'] == 'resnet18'
    assert json.loads(lines['all', '1']['options']) == {'train_cfg.max_iters': 12}
    pictures = ('1_differences.svg', '1_ap.svg', '1_ap_per_iou.svg', '1_errors.svg')
    assert all(f']({picture})' in text and (out / picture).is_file() for picture in pictures)
    assert (out / 'comparison.html').read_text().count('<svg') == len(pictures)


def test_other_settings_get_a_section_of_their_own(tmp_path: Path) -> None:
    """Of three, one has no row in common with plain, one no plain row."""
    folders = [
        write(tmp_path / 'whole', result('plain', 0, 0.2), result('all', 1, 0.3)),
        write(tmp_path / 'quarter', *(result(row, 0, 0.1, train_images=5) for row in ('plain', 'all'))),
        write(tmp_path / 'long', result('all', 0, 0.4, iterations=24, amp=True, annotations={'train': 'a1'})),
    ]
    main([*map(str, folders), '--out-dir', str(tmp_path / 'out')])
    text = (tmp_path / 'out' / 'comparison.md').read_text()
    _, *sections = text.split('\n## ')
    assert len(sections) == 3 and 'must not be compared' in text
    differences = {
        one.partition(' iterations of ')[0].split()[-1] + one.partition(' training and')[0].split()[-1]: one
        for one in sections
    }
    assert line(differences['1220'], 'all', 'Difference to plain') == f'| all {"| - " * 7}|'
    assert '| all | +0.0 (0/1) ' in differences['125']
    assert 'Difference to plain' not in differences['2420']
    assert 'of 4 images, in mixed precision.\n' in differences['2420']
    assert 'Annotations: `a1`.' in differences['2420'] and 'Annotations' not in differences['1220']
    assert len(list((tmp_path / 'out').glob('*_ap.svg'))) == 3


def test_the_committed_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers of docs/results.md, printed by the tool."""
    main([str(ROOT / 'docs/results/fod_ssd_tiny'), '--out-dir', str(tmp_path)])
    text = capsys.readouterr().out
    documented = (ROOT / 'docs/results.md').read_text()
    for row in ('plain', '+KDcls', '+loc', 'all'):
        ap, ap50, ap75 = line(text, row, 'Metrics').split(' | ')[2:5]
        assert f'| {row.replace("+", "+ ")} | {ap} | {ap50} | {ap75} |' in documented
