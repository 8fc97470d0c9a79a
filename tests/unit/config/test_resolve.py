import copy
import json
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config

from mmdet.config import resolve as config
from mmdet.config.classes import check_classes
from tests.helpers.tiny_run import ROOT

STUDENT = """
data_root = 'data/coco2017/'  # set this to your COCO 2017
train_pipeline = [dict(type='LoadImageFromFile')]
train_dataloader = dict(batch_size=8, dataset=dict(type='CocoDataset', pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, dataset=dict(type='CocoDataset', pipeline=[], test_mode=True))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric')
test_evaluator = val_evaluator
train_cfg = dict(type='TrainLoop', max_epochs=24)
model = dict(
    type='SSD',
    backbone=dict(type='SSDVGG', weights='IMAGENET1K_FEATURES'),
    bbox_head=dict(type='SSDHead', num_classes=80))
"""
DISTILLED = """
_base_ = 'student.py'
model = dict(distiller=dict(
    type='ClassifierDistiller',
    teacher=dict(type='FrozenTeacher', num_classes=80, classes=None),
    kd_cls=dict(temperature=2.0), kd_loc=None))
"""


SSD300 = ROOT / 'configs/ssd/ssd300.py'


def write_set(root: Path, train: str, val: str, names: list[str]) -> Path:
    """Annotations of the two splits; category ids run against the order in the file."""
    categories = [{'id': 10 * i, 'name': name} for i, name in enumerate(names, start=1)][::-1]
    for file in (train, val):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(json.dumps({'images': [], 'annotations': [], 'categories': categories}))
    return root


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'student.py').write_text(STUDENT)
    (tmp_path / 'distilled.py').write_text(DISTILLED)
    coco = 'annotations/instances_{}2017.json'
    write_set(tmp_path / 'set', coco.format('train'), coco.format('val'), ['cat', 'dog', 'emu'])
    return tmp_path


def assert_all_moved(cfg: Config, root: Path | str, classes: tuple[str, ...] = ('cat', 'dog', 'emu')) -> None:
    for split, of in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert Path(dataset.data_root) == Path(root)
        assert dataset.ann_file == f'annotations/instances_{of}2017.json'
        assert dataset.data_prefix == {'img': f'{of}2017/'}
        assert dataset.metainfo == {'classes': classes}
    for metric in (cfg.val_evaluator, cfg.test_evaluator):
        assert Path(metric.ann_file) == Path(root, 'annotations/instances_val2017.json')
        assert metric.classes == classes
    assert cfg.model.bbox_head.num_classes == len(classes)


@pytest.mark.parametrize('slash', ['', '/'])
def test_each_way_to_give_data_root_moves_all_splits(folder, slash):
    root = f'{folder / "set"}{slash}'
    edited = folder / 'edited.py'
    edited.write_text(STUDENT.replace('data/coco2017/', root))
    child = folder / 'child.py'
    child.write_text(f"_base_ = 'distilled.py'\ndata_root = {root!r}\n")

    for file, options, data_root in (
        (edited, {}, None),
        (child, {}, None),
        (folder / 'student.py', {'data_root': root}, None),
        (folder / 'student.py', {'data_root': 'elsewhere'}, root),
    ):
        assert_all_moved(config.load_config(file, options, data_root), root)


@pytest.mark.parametrize('kind', ['FrozenTeacher', 'StoredTeacher'])
def test_a_config_may_leave_out_what_the_data_say(folder, kind):
    text = DISTILLED.replace("'FrozenTeacher', num_classes=80, classes=None", repr(kind))
    (folder / 'distilled.py').write_text(text)
    teacher = config.load_config(folder / 'distilled.py', {}, folder / 'set').model.distiller.teacher
    assert teacher.classes == ('cat', 'dog', 'emu')
    assert teacher.get('num_classes', 3) == 3
    ann_file = str(folder / 'set/annotations/instances_train2017.json')
    assert teacher.get('ann_file') == (ann_file if kind == 'StoredTeacher' else None)
    assert ('num_classes' in teacher) == (kind == 'FrozenTeacher')


def test_resolving_twice_changes_nothing_and_the_dump_reads_back(folder):
    cfg = config.load_config(folder / 'distilled.py', data_root=folder / 'set')
    once = cfg.pretty_text
    assert config.resolve(cfg).pretty_text == once
    cfg.dump(folder / 'recorded.py')
    assert config.load_config(folder / 'recorded.py').pretty_text == once


@pytest.mark.parametrize(
    'key',
    ['test_dataloader.dataset.ann_file', 'val_dataloader.dataset.data_prefix.img', 'val_evaluator.ann_file'],
)
def test_paths_that_would_be_overwritten_are_refused(folder, key):
    """MMDetection's keys, on the command line and in a child config."""
    split = key.partition('_')[0]
    with pytest.raises(ValueError, match=rf'{key}=.* would be overwritten: .*{split}_ann and {split}_img'):
        config.load_config(folder / 'student.py', {key: 'other'}, folder / 'set')
    if 'dataset' in key:
        child, name = folder / 'child.py', key.rpartition('.')[2] if 'prefix' not in key else 'data_prefix'
        value = "dict(img='other/')" if name == 'data_prefix' else "'other.json'"
        child.write_text(f"_base_ = 'student.py'\n{split}_dataloader = dict(dataset=dict({name}={value}))\n")
        with pytest.raises(ValueError, match=rf'dataset\.{name}=.* would be overwritten'):
            config.load_config(child, {}, folder / 'set')


def test_other_metrics_and_lists_of_metrics_are_left_alone(folder):
    child = folder / 'child.py'
    child.write_text(
        "_base_ = 'student.py'\nval_evaluator = [dict(type='CropAccuracy'), dict(type='CocoMetric')]\n"
        'test_evaluator = None\ntest_dataloader = None\ntest_cfg = None\n'
    )
    cfg = config.load_config(child, data_root=folder / 'set')
    assert cfg.val_evaluator[0] == {'type': 'CropAccuracy'}
    assert cfg.val_evaluator[1].classes == ('cat', 'dog', 'emu')


def test_testing_needs_no_training_annotations(folder):
    (folder / 'set/annotations/instances_train2017.json').unlink()
    with pytest.raises(FileNotFoundError) as error:
        config.load_config(folder / 'student.py', data_root=folder / 'set')
    for part in ('set/annotations/instances_train2017.json', '--data-root', 'student.py', 'train_ann='):
        assert part in str(error.value)
    cfg = config.load_config(folder / 'student.py', data_root=folder / 'set', for_training=False)
    assert_all_moved(cfg, folder / 'set')
    (folder / 'set/annotations/instances_val2017.json').unlink()
    with pytest.raises(FileNotFoundError, match='instances_'):
        config.load_config(folder / 'student.py', data_root=folder / 'set', for_training=False)


def test_a_folder_of_labels_is_answered_with_its_converter(folder):
    (folder / 'set/labels').mkdir()
    (folder / 'set/labels/1.txt').touch()
    with pytest.raises(ValueError, match=r'set/labels is not an annotation file: .*/misc/yolo2coco\.py'):
        config.load_config(folder / 'student.py', {'train_ann': 'labels'}, folder / 'set')


def test_splits_with_different_classes_print_both_lists(folder):
    write_set(folder / 'set', 'val.json', 'val.json', ['cat', 'dog', 'gnu'])
    with pytest.raises(ValueError, match='cat, dog, emu') as error:
        config.load_config(folder / 'student.py', {'val_ann': 'val.json'}, folder / 'set')
    assert 'cat, dog, gnu' in str(error.value)
    assert """--cfg-options "classes=['cat', 'dog']\"""" in str(error.value)
    options = {'val_ann': 'val.json', 'classes': ['cat', 'dog']}
    assert config.load_config(folder / 'student.py', options, folder / 'set').model.bbox_head.num_classes == 2
    with pytest.raises(ValueError, match='another order'):
        check_classes(['a', 'b'], 'data', ['b', 'a'], 'checkpoint')
    check_classes(['a', 'b'], 'data', ('a', 'b'), 'checkpoint')


@pytest.mark.parametrize(
    ('given', 'chosen'), [(['emu', 'cat'], ('emu', 'cat')), ('dog', ('dog',)), ([7], ('7',)), (None, None)]
)
def test_one_key_chooses_and_orders_classes(folder, given, chosen):
    """Also where the splits hold different ones, and where a name looks like a number."""
    write_set(folder / 'set', 'val.json', 'val.json', ['cat', 'dog', 'emu', '7', 'gnu'])
    options = {'train_ann': 'val.json', 'val_ann': 'val.json', 'classes': given}
    cfg = config.load_config(folder / 'distilled.py', options, folder / 'set')
    chosen = chosen or ('cat', 'dog', 'emu', '7', 'gnu')
    assert cfg.train_dataloader.dataset.metainfo.classes == cfg.test_evaluator.classes == chosen
    assert cfg.model.bbox_head.num_classes == cfg.model.distiller.teacher.num_classes == len(chosen)
    assert cfg.model.distiller.teacher.classes == chosen
    once = cfg.pretty_text
    assert config.resolve(cfg).pretty_text == once


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'classes': ['cat', 'dogs']}, r'set/.*train2017\.json, which has no dogs\. Did you mean dog\?'),
        ({'classes': ['cat', 'cat']}, 'chooses different names out of'),
        ({'classes': []}, 'chooses different names out of'),
        (
            {'train_dataloader.dataset.metainfo.classes': ('cat',)},
            r'classes=\(.cat.,\) differs (?s:.*)--cfg-options .classes=',
        ),
        ({'model.bbox_head.num_classes': 5}, r'model.bbox_head.num_classes=5 differs from the 3 classes'),
    ],
)
def test_another_choice_of_classes_is_refused_and_names_the_key(folder, options, message):
    with pytest.raises(ValueError, match=message):
        config.load_config(folder / 'student.py', options, folder / 'set')


def test_a_recorded_config_serves_another_data_set(folder):
    config.load_config(folder / 'student.py', data_root=folder / 'set').dump(folder / 'recorded.py')
    coco = 'annotations/instances_{}2017.json'
    write_set(folder / 'other', coco.format('train'), coco.format('val'), ['gnu', 'yak'])
    cfg = config.load_config(folder / 'recorded.py', data_root=folder / 'other')
    assert_all_moved(cfg, folder / 'other', ('gnu', 'yak'))


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('model.distiller.kd_loc.levels', 'cannot inherit from base'),
        ('val_evaluator.1.type', 'Index 1 exceeds the length'),
        ('custom_hooks.2.file', 'default_hooks.NAME.file, NAME one of curves'),
    ],
)
def test_an_override_that_does_not_fit_is_named(folder, key, message):
    (folder / 'child.py').write_text(
        "_base_ = 'distilled.py'\ndefault_hooks = dict(curves=dict(type='CurvesHook'))\n"
        "val_evaluator = [dict(_delete_=True, type='CocoMetric')]\n"
    )
    with pytest.raises(ValueError, match=f'--cfg-options {key}=') as error:
        config.merge_config(folder / 'child.py', {key: 1})
    assert message in str(error.value)


def test_a_hook_that_an_older_config_lists_takes_the_place_of_the_named_one(folder, capsys):
    (folder / 'base.py').write_text("default_hooks = dict(curves=dict(type='CurvesHook'))\n")
    old = folder / 'old.py'
    old.write_text(
        "_base_ = './base.py'\n"
        "custom_hooks = [dict(type='CurvesHook', priority='LOW'), dict(type='EMAHook')]\n"
    )
    cfg = config.merge_config(old, {'custom_hooks.1.momentum': 0.1})
    assert cfg.default_hooks == {'curves': {'type': 'CurvesHook', 'priority': 'LOW'}}
    assert cfg.custom_hooks == [{'type': 'EMAHook', 'momentum': 0.1}]
    assert capsys.readouterr().err == 'note: CurvesHook in custom_hooks is now default_hooks.curves\n'


def test_types_and_keys_of_earlier_versions_work_with_a_hint(tmp_path, capsys):
    hook = "dict(type='DistillationAlarmHook', dwarf_ratio=7)"
    (tmp_path / 'old.py').write_text(f'default_hooks = dict(distillation_monitor={hook})\n')
    cfg = config.merge_config(tmp_path / 'old.py')
    renamed = {'type': 'DistillationMonitorHook', 'max_grad_ratio': 7}
    assert cfg.default_hooks.distillation_monitor == renamed
    assert capsys.readouterr().err.splitlines() == [
        'note: DistillationAlarmHook is now DistillationMonitorHook',
        'note: DistillationMonitorHook.dwarf_ratio is now max_grad_ratio',
    ]
    cfg = config.merge_config(SSD300, {'model.bbox_head.neg_pos_ratio': 2})
    assert cfg.model.bbox_head.cls_loss == {'type': 'MultiBoxLoss', 'neg_pos_ratio': 2}
    assert 'SSDHead.neg_pos_ratio is now cls_loss.neg_pos_ratio' in capsys.readouterr().err


def test_a_pixel_weight_chosen_before_gray_levels_is_explained(capsys):
    """The remedy that is printed ends the note; a student of std 1 has the unit it had."""
    key, tiny = 'model.distiller.kd_loc.loss_weight', ROOT / 'configs_dev/ssd/ssd_tiny_cls_loc.py'
    config.merge_config(tiny, {key: 0.3})
    (note,) = capsys.readouterr().err.splitlines()
    assert note.endswith(f'{key}=(0.00520562,0.3)')
    config.merge_config(tiny, {key: (0.00520562, 0.3)})
    config.merge_config(ROOT / 'configs_dev/ssd/ssd300_coco_cls_loc.py', {key: 0.3})
    assert not capsys.readouterr().err


def flat(value: Any, place: str = '') -> dict[str, Any]:
    """Dotted key -> value of everything inside."""
    if not isinstance(value, (dict, list)):
        return {place: value}
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    parts = [flat(item, f'{place}.{key}' if place else str(key)) for key, item in inside]
    return {key: item for part in parts for key, item in part.items()}


@cache
def flat_ssd300() -> dict[str, Any]:
    return flat(config.merge_config(SSD300).to_dict())


@settings(deadline=None, max_examples=10)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                'train_cfg.max_iters',
                'default_hooks.logger.interval',
                'model.bbox_head.cls_loss.neg_pos_ratio',
                'optim_wrapper.optimizer.lr',
                'param_scheduler.1.gamma',
            ]
        ),
        st.one_of(st.none(), st.integers(1, 99), st.floats(0, 1)),
    ),
    st.dictionaries(
        st.sampled_from(['model.backbone.weights', 'work_dir', 'val_img']),
        st.one_of(st.none(), st.integers(1, 99), st.text(max_size=8)),
    ),
)
def test_any_override_reaches_its_place_and_nothing_else(numbers, texts):
    overrides = {**numbers, **texts}
    merged = flat(config.merge_config(SSD300, overrides).to_dict())
    assert merged == {**flat_ssd300(), **overrides}


def test_a_number_in_the_place_of_a_path_is_refused():
    """As in a config file: train_img = 2024_01_15."""
    with pytest.raises(TypeError, match=r'train_img is a path; 20240115 is not\. Put quotes around it'):
        config.load_config(SSD300, {'train_img': 2024_01_15})


def test_missing_config_file_is_named(tmp_path):
    (tmp_path / 'ssd_tiny.py').write_text('')
    for typed, words in (
        ('ssd_tny.py', f'ssd_tny.py. Did you mean {tmp_path}/ssd_tiny.py?'),
        ('gone/retina.py', 'retina.py. `distill-det configs` lists those that come with the toolbox.'),
    ):
        with pytest.raises(FileNotFoundError, match='config file not found: ') as error:
            config.load_config(tmp_path / typed)
        assert str(error.value).endswith(words)


def test_a_config_is_laid_out_once_until_it_changes(monkeypatch, tmp_path):
    plain = Config({'model': {'type': 'SSD', 'sizes': [(1, 2)]}, 'work_dir': 'a'})
    cfg = config.CachedConfig.of(plain)
    calls = []
    monkeypatch.setattr(
        'yapf.yapflib.yapf_api.FormatCode', lambda text, **style: (calls.append(text) or text, True)
    )
    for _ in range(3):
        assert cfg.pretty_text == copy.deepcopy(cfg).pretty_text
        cfg.dump(tmp_path / 'cfg.py')
    assert len(calls) == 1
    assert (tmp_path / 'cfg.py').read_text() == plain.pretty_text
    cfg.model.sizes[0] = (8, 9)
    assert '9' in cfg.pretty_text and '9' not in plain.pretty_text
    assert pickle.loads(pickle.dumps(cfg)).pretty_text == cfg.pretty_text
