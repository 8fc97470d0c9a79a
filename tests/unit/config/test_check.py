"""Mistyped keys and types of a config, refused as it is read."""

import pytest

from mmdet.config.check import ConfigError, config_context
from mmdet.config.resolve import merge_config
from mmdet.registry import HOOKS
from tests.helpers.tiny_run import PLAIN


@pytest.mark.parametrize(
    ('key', 'value', 'words'),
    [
        ('train_cgf.max_iters', 3, 'nothing reads the key train_cgf. Did you mean train_cfg?'),
        ('data_rot', 'x', 'Did you mean data_root?'),
        ('train_pipeline.0.type', 'x', 'A variable of a config file is changed there'),
        ('data.samples_per_gpu', 8, 'Use train_dataloader'),
        ('model.bbox_haed.num_classes', 3, 'Did you mean bbox_head?'),
        (
            'model.bbox_head.cls_loss.neg_pos_rate',
            3,
            'MultiBoxLoss does not know model.bbox_head.cls_loss.neg_pos_rate. Did',
        ),
        ('train_cfg.max_iter', 3, 'TrainLoop does not know train_cfg.max_iter. Did you mean max_iters?'),
        ('train_dataloader.bach_size', 3, 'Did you mean batch_size?'),
        ('train_dataloader.dataset.pipeline.4.scales', 3, 'pipeline.4.scales'),
        ('train_dataloader.collate_fn.divisor', 3, 'pad_size_divisor'),
        ('optim_wrapper.optimizer.weight_deca', 3, 'Did you mean weight_decay?'),
        ('default_hooks.loger.interval', 3, 'default_hooks.loger has no type. Did you mean logger?'),
        ('default_hooks.distillation_monitor.feeble_ratio', 0.1, 'It is gone'),
        ('env_cfg.cudnn_benchmrk', True, 'Did you mean cudnn_benchmark?'),
        ('model.backbone.type', 'SSDVGGG', 'model.backbone.type=SSDVGGG is not known. Did you mean SSDVGG?'),
        ('train_cfg.type', 'TrianLoop', 'Did you mean TrainLoop?'),
        ('optim_wrapper.optimizer.type', 'Adamm', 'optim_wrapper.optimizer.type=Adamm is not known'),
        ('model.backbone.type', 'Resizes', 'model.backbone.type=Resizes is not known. Did you mean ResNet?'),
        ('visualizer.vis_backends', ['WandVisBackend'], 'Did you mean WandbVisBackend?'),
        ('optim_wrapper.optimizer.lr', 'fast', "optim_wrapper.optimizer.lr='fast' has to be a number"),
    ],
)
def test_an_override_that_nothing_reads(key, value, words):
    with pytest.raises(TypeError, match=r'ssd_tiny\.py: ') as error:
        merge_config(PLAIN, {key: value})
    assert words in str(error.value)


def test_a_new_type_with_the_keys_of_the_former():
    key, value = 'model.bbox_head.bbox_loss', {'_delete_': True, 'type': 'GIoULoss'}
    with pytest.raises(TypeError, match=r'does not know model\.bbox_head\.bbox_loss\.beta') as error:
        merge_config(PLAIN, {f'{key}.type': 'GIoULoss'})
    assert f'"{key}=dict(_delete_=True,type=\'GIoULoss\')"' in str(error.value)
    with pytest.raises(TypeError, match='know model') as error:  # typed, not inherited
        merge_config(PLAIN, {f'{key}.type': 'SmoothL1Loss', f'{key}.beto': 1})
    assert '_delete_' not in str(error.value)
    place = 'train_dataloader.dataset.pipeline'
    with pytest.raises(TypeError, match=f'RandomFlip does not know {place}') as error:
        merge_config(PLAIN, {f'{place}.2.type': 'RandomFlip'})  # a list, in which it would do nothing
    assert '_delete_' not in str(error.value)
    assert merge_config(PLAIN, {key: value}).model.bbox_head.bbox_loss == {'type': 'GIoULoss'}


@HOOKS.register_module(force=True)
class TakesBothHook:
    def __init__(self, gain: float | str = 1.0) -> None: ...


def test_text_for_a_number_where_a_constructor_takes_both():
    key = 'default_hooks.own'
    assert merge_config(PLAIN, {f'{key}.type': 'TakesBothHook', f'{key}.gain': 'auto'})


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (
            'optim_wraper = dict(clip_grad=None)',
            'nothing reads the key optim_wraper. Did you mean optim',
        ),
        ('data = dict(samples_per_gpu=8)', 'nothing reads the key data. Use train_dataloader'),
        ('model = dict(bbox_haed=dict(num_classes=3))', 'Did you mean bbox_head?'),
        ('model = dict(', 'never closed'),
        ("_base_ = 'none.py'", 'none.py'),
        ('my_own = 3', None),
    ],
)
def test_a_mistake_in_a_file(tmp_path, text, words):
    base = '' if '_base_' in text else f'_base_ = {str(PLAIN)!r}\n'
    (tmp_path / 'mine.py').write_text(f'{base}{text}\n')
    if words is None:  # a variable of its own
        assert merge_config(tmp_path / 'mine.py').my_own == 3
        return
    with pytest.raises((TypeError, ValueError), match=r'mine\.py') as error:
        merge_config(tmp_path / 'mine.py')
    assert words in str(error.value)


def test_a_file_that_is_no_config(tmp_path):
    for name, told in (
        ('photo.jpg', r'photo\.jpg, or a _base_ file of it, cannot be read'),
        ('latest.pth', r'latest\.pth is a checkpoint: the config comes first'),
    ):
        (tmp_path / name).write_bytes(b'PK\x80')
        with pytest.raises(ValueError, match=told):
            merge_config(tmp_path / name)


def test_the_innermost_part_is_named_and_a_file_names_itself():
    with pytest.raises(ConfigError) as error, config_context('model'), config_context('the hook X'):
        raise KeyError('no such key')
    said = 'no such key\n  This is said of the hook X in the config (--cfg-options changes it).'
    assert str(error.value) == said
    with pytest.raises(FileNotFoundError), config_context('model'):
        raise FileNotFoundError('teacher.pth')
