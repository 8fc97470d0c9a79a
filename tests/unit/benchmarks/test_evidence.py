"""Tests of benchmarks/evidence.py: its units, the teacher of labels, the table."""

import json

import pytest
import torch

from benchmarks import evidence
from mmdet.analysis.runs import FORMAT, SETTINGS
from mmdet.checkpoint.io import load_checkpoint, save_checkpoint


def test_list_names_the_units_whose_data_are_there(tmp_path, capsys):
    (tmp_path / 'chess').mkdir()
    evidence.main(['list', '--data', str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ['chess plain 0', 'chess all 0']
    assert all(line.startswith('chess ') for line in lines)


def test_labels_are_stored_as_a_teacher_that_knows_no_more(tmp_path):
    answers, annotations = tmp_path / 'answers.pth', tmp_path / 'train.json'
    known = {'ann_ids': torch.tensor([3, 8]), 'answers': torch.zeros(2, 2)}
    save_checkpoint({'classes': ['a', 'b'], 'state_dict': known}, answers)
    content = {'categories': [{'id': 7}, {'id': 5}], 'annotations': []}
    content['annotations'] = [{'id': 8, 'category_id': 5}, {'id': 3, 'category_id': 7}]
    annotations.write_text(json.dumps(content))
    evidence.store_labels(answers, annotations, tmp_path / 'smooth.pth')
    stored = load_checkpoint(tmp_path / 'smooth.pth')
    assert stored['classes'] == ['a', 'b']
    expected = torch.tensor([[0.05, 0.95], [0.95, 0.05]])
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


@pytest.mark.parametrize(
    ('name', 'given', 'steps'),
    [
        *((name, (), (1000, recipe.steps, 2500)) for name, recipe in evidence.RECIPES.items()),
        ('neudet', ('--side', '96', '--steps', '70', '--teacher-steps', '30'), (30, 70, 2500)),
    ],
)
def test_options_belong_to_the_configs(name, given, steps, tmp_path, monkeypatch):
    from mmdet.config.resolve import merge_config
    from mmdet.config.schedule import apply_short_keys

    calls = []
    monkeypatch.setattr(evidence.Unit, 'call', lambda self, *args: calls.append(args))
    monkeypatch.setattr(evidence, 'store_labels', lambda *args: None)
    folders = ['--data', str(tmp_path), '--out', str(tmp_path / 'out')]
    evidence.main(['run', name, 'strong', '0', *folders, *given])
    tools = [tool for tool, *_ in calls]
    assert tools == ['tools/train.py', 'tools/store_teacher.py', 'tools/analysis/run_rows.py']
    for _, config, options, *_ in calls:
        resolved = merge_config(config, options)
        apply_short_keys(resolved)
        assert resolved.train_cfg.max_iters in steps
