"""Tests of benchmarks/evidence.py: its units, the teacher of labels, the table."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import evidence
from mmdet.analysis.runs import FORMAT, SETTINGS
from mmdet.checkpoint.io import load_checkpoint, save_checkpoint
from mmdet.config.resolve import merge_config
from mmdet.config.schedule import apply_short_keys


def test_list_names_the_units_whose_data_are_there(tmp_path, capsys):
    (tmp_path / 'chess').mkdir()
    evidence.main(['list', '--data', str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert {row for _, row, _ in evidence.grid()} == set(evidence.ROWS)
    assert lines[:2] == ['chess plain 0', 'chess cls 0']
    assert all(line.startswith('chess ') for line in lines)


def test_labels_are_stored_as_a_teacher_that_knows_no_more(tmp_path):
    answers, annotations = tmp_path / 'answers.pth', tmp_path / 'train.json'
    known = {'ann_ids': torch.tensor([3, 8]), 'answers': torch.tensor([[0.9, 0.1], [0.7, 0.3]]).log()}
    save_checkpoint({'classes': ['a', 'b'], 'state_dict': known}, answers)
    content = {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'width': 9, 'height': 9}],
        'categories': [{'id': 7, 'name': 'b'}, {'id': 5, 'name': 'a'}],
        'annotations': [
            {'id': number, 'image_id': 1, 'category_id': category, 'bbox': [0, 0, 4, 4]}
            for number, category in ((8, 5), (5, 5), (3, 7))
        ],
    }
    annotations.write_text(json.dumps(content))
    evidence.store_labels(answers, annotations, tmp_path / 'labels.pth')
    stored = load_checkpoint(tmp_path / 'labels.pth')
    assert stored['classes'] == ['a', 'b']
    expected = torch.tensor([[0.2, 0.8], [0.8, 0.2]])  # of 3 and 8; 0.8 is the teacher's mean
    torch.testing.assert_close(
        stored['state_dict']['answers'].float().softmax(1), expected, atol=1e-3, rtol=0
    )


def test_table_gives_paired_differences_with_their_interval(tmp_path):
    for seed, (plain, distilled) in enumerate(((0.30, 0.33), (0.32, 0.34))):
        for row, value in (('plain', plain), ('all', distilled)):
            metrics = dict.fromkeys(evidence.METRICS, value)
            file = tmp_path / 'neudet' / f'{row}_seed{seed}.json'
            file.parent.mkdir(exist_ok=True)
            settings = dict.fromkeys((*SETTINGS, 'command'), 'same')
            run = {**settings, 'format': FORMAT, 'row': row, 'seed': seed, 'metrics': metrics}
            file.write_text(json.dumps(run))
    *_, plain, distilled = evidence.report(tmp_path).splitlines()
    assert plain.split(' | ')[3] == '31.0 ± 1.4'
    # differences 3 and 2: mean 2.5, standard deviation 0.707, t 12.706, over the root of 2
    assert distilled.split(' | ')[6] == '+2.5 ± 6.4'
    assert '>neudet all<' in (tmp_path / 'differences.svg').read_text()
    *_, plain, distilled = evidence.report(tmp_path, base='all').splitlines()
    assert plain.split(' | ')[6] == '-2.5 ± 6.4'
    assert not distilled.split(' | ')[6].strip()


@pytest.mark.parametrize(
    ('name', 'row'),
    [
        ('chess', 'all'),
        ('fod25', 'plain'),
        *(('neudet', row) for row in ('longer', 'labels', 'full', 'online_full', 'gate', 'proposals')),
        *(('chess', row) for row in ('calibrated_resnet18', 'dkd_lite0')),
    ],
)
def test_options_belong_to_the_configs(name, row, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(evidence.Unit, 'call', lambda self, *args: calls.append(args))
    monkeypatch.setattr(evidence.Unit, 'temperature', lambda self: 1.5)
    monkeypatch.setattr(evidence.subprocess, 'run', lambda *args, **keywords: None)
    monkeypatch.setattr(evidence, 'store_labels', lambda *args: None)
    sides = ['--side', '96', '--steps', '70', '--teacher-steps', '30']
    evidence.main(['run', name, row, '0', '--data', str(tmp_path), '--out', str(tmp_path / 'out'), *sides])
    tools = [Path(tool).stem for tool, *_ in calls]
    asked = [] if row in ('plain', 'longer') else ['train', 'teacher_report', 'store_teacher']
    assert tools == [*asked, 'run_rows']
    for tool, config, options, *_ in calls:
        resolved = merge_config(config, {**options, 'row': 'all'} if tool == 'run_rows' else options)
        apply_short_keys(resolved)
        assert resolved.train_cfg.max_iters in (30, 70, 80, 2500)


def test_plain_and_all_have_the_same_settings(tmp_path, monkeypatch):
    """Or compare.py would not pair them."""
    calls = []
    monkeypatch.setattr(evidence.Unit, 'call', lambda self, tool, config, options, *_: calls.append(options))
    monkeypatch.setattr(evidence.Unit, 'prepare_teacher', lambda self: None)
    for row in ('plain', 'all'):
        evidence.main(['run', 'neudet', row, '0', '--data', str(tmp_path), '--out', str(tmp_path)])
    assert calls[0] == calls[1]


def test_a_row_on_some_photos_with_another_teacher(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(evidence.subprocess, 'run', lambda command, **_: calls.append(command))
    folders = ['--data', str(tmp_path / 'data'), '--out', str(tmp_path / 'out')]
    monkeypatch.setattr(evidence, 'store_labels', lambda *args: None)
    report = tmp_path / 'out/fod25/teacher_resnet18/report/report.json'
    report.parent.mkdir(parents=True)
    report.write_text('{"suggested_temperature": 1.5}')
    evidence.main(['run', 'fod25', 'calibrated_resnet18', '1', *folders])
    drawn, *_, student = calls
    assert drawn[-3:] == [str(tmp_path / 'out/fod25/photos'), '--val', '0.75']
    assert f'train_ann={tmp_path / "out/fod25/photos/train.json"}' in student
    assert f'{evidence.KD_CLS}.temperature=1.5' in student
    assert 'model.distiller.teacher.network.arch=resnet18' in student
