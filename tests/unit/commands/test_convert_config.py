"""Configs of MMDetection 2.x become children of ours that train the same detector."""

from typing import Any

import pytest

from mmdet.commands.convert_config import main
from mmdet.config.resolve import merge_config
from tests.helpers.old_configs import DICOD, FASTER_RCNN, GENERAL, RETINANET, SSD300
from tests.helpers.tiny_run import ROOT


@pytest.fixture
def convert(tmp_path, capsys):
    """`convert('old.py')` runs the command; returns the new config, merged, and what was printed."""
    for name, text in (
        ('ssd300.py', SSD300),
        ('dicod.py', DICOD),
        ('general.py', GENERAL),
        ('retinanet.py', f"_base_ = './general.py'\n{RETINANET}\noptimizer = dict(lr=0.01)"),
        ('faster_rcnn.py', f"_base_ = './general.py'\n{FASTER_RCNN}"),
    ):
        (tmp_path / name).write_text(text)

    def run(old: str, text: str | None = None) -> tuple[dict[str, Any], str]:
        if text is not None:
            (tmp_path / 'schedules').mkdir(exist_ok=True)
            (tmp_path / 'schedules/missing.py').touch()
            (tmp_path / old).write_text(text)
        main([str(tmp_path / old), str(tmp_path / 'new/new.py')])
        return merge_config(tmp_path / 'new/new.py').to_dict(), capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ('old', 'ours', 'left_out'),
    [
        ('ssd300.py', 'configs/ssd/ssd300_coco.py', ['hook TensorboardLoggerHook']),
        (
            'dicod.py',
            'configs_dev/ssd/ssd300_coco_cls_loc.py',
            ['hook TensorboardLoggerHook', 'schedules/missing.py, which is missing'],
        ),
        ('retinanet.py', 'configs/retinanet/retinanet_r50_fpn.py', []),
        ('faster_rcnn.py', 'configs/faster_rcnn/faster_rcnn_r50_fpn.py', []),
    ],
)
def test_published_configs_are_ours(convert, old, ours, left_out):
    new, told = convert(old)
    assert new == merge_config(ROOT / ours).to_dict()
    assert f'a child of {ROOT / ours}\nleft out: {len(left_out) or "nothing"}\n' in told
    assert all(line in told for line in left_out)


SSD_CHANGES = """
model = dict(
    pretrained='my/vgg.pth', train_cfg=dict(neg_pos_ratio=5), test_cfg=dict(nms=dict(iou_threshold=0.6)))
data = dict(train=dict(times=2), samples_per_gpu=4, workers_per_gpu=1)
optimizer = dict(_delete_=True, type='Adam', lr=1e-3)
optimizer_config = dict(grad_clip=dict(max_norm=35, norm_type=2))
runner = dict(max_epochs=6)
lr_config = dict(_delete_=True, policy='CosineAnnealing', min_lr_ratio=0.5)
evaluation = dict(interval=4, save_best='bbox_mAP_50')
checkpoint_config = dict(max_keep_ckpts=3)
log_config = dict(interval=7)
seed = 3
load_from = 'x.pth'
"""
SSD_EXPECTED = {
    'model.backbone.weights': 'my/vgg.pth',
    'model.bbox_head.cls_loss.neg_pos_ratio': 5,
    'model.bbox_head.postprocess.iou_threshold': 0.6,
    'train_dataloader.sampler.times': 2,
    'train_dataloader.batch_size': 4,
    'test_dataloader.num_workers': 1,
    'optim_wrapper.optimizer': {'type': 'Adam', 'lr': 1e-3},
    'optim_wrapper.clip_grad.max_norm': 35,
    'train_cfg': {'type': 'TrainLoop', 'max_epochs': 6, 'val_interval': 4},
    'param_scheduler': [
        {'type': 'CosineAnnealingLR', 'by_epoch': True, 'begin': 0, 'end': 6, 'eta_min': 5e-4}
    ],
    'default_hooks.checkpoint.save_best': 'coco/bbox_mAP_50',
    'default_hooks.checkpoint.max_keep_ckpts': 3,
    'default_hooks.logger.interval': 7,
    'randomness.seed': 3,
    'load_from': 'x.pth',
}
FASTER_CHANGES = """
model = dict(
    backbone=dict(depth=101), roi_head=dict(bbox_head=dict(fc_out_channels=512)),
    train_cfg=dict(rpn=dict(sampler=dict(num=64)), rpn_proposal=dict(nms_pre=500)))
"""
FASTER_EXPECTED = {
    'model.backbone.depth': 101,
    'model.roi_head.fc_channels': 512,
    'model.rpn_head.assigner.num': 64,
    'model.rpn_head.train_postprocess.nms_pre': 500,
}
RETINA_CHANGES = """
model = dict(bbox_head=dict(stacked_convs=2, anchor_generator=dict(scales_per_octave=2)))
val = dict(ann_file='other/val.json', img_prefix='other/img/')
data = dict(test=val)
"""
RETINA_EXPECTED = {
    'model.bbox_head.stacked_convs': 2,
    'model.bbox_head.anchor_generator.scales': [4.0, 4 * 2**0.5],
    'data_root': '',
    'test_ann': 'other/val.json',
    'train_img': 'data/coco2017/train2017/',
}


@pytest.mark.parametrize(
    ('old', 'lines', 'expected'),
    [
        ('ssd300.py', SSD_CHANGES, SSD_EXPECTED),
        ('faster_rcnn.py', FASTER_CHANGES, FASTER_EXPECTED),
        ('retinanet.py', RETINA_CHANGES, RETINA_EXPECTED),
        (
            'dicod.py',
            'kt_config = dict(kt_cls=None, kt_loc=dict(loc_t=False))',
            {
                'model.distiller.teacher': None,
                'model.distiller.kd_cls': None,
                'model.distiller.kd_loc.levels': ['pixels'],
            },
        ),
        (
            'dicod.py',
            "kt_config = dict(cfg_t=dict(teacher_type='all'), kt_loc=dict(layer=[0, 1], gap_size=2))",
            {
                'model.distiller.teacher.checkpoint': 'cls_teachers/general/model_best.pth.tar',
                'model.distiller.kd_loc.levels': ['stem', 'layer1'],
                'model.distiller.kd_loc.pool_sizes': [2, 4],
            },
        ),
    ],
)
def test_what_an_old_config_says_otherwise(convert, old, lines, expected):
    new, _ = convert('child.py', f"_base_ = './{old}'\n{lines}")
    for place, value in expected.items():
        found: Any = new
        for name in place.split('.'):
            found = found[name]
        assert found == value


def test_pixels_of_a_distilled_retinanet_are_measured_in_gray_levels(convert):
    """0.15 of the student's std, as DICOD has it."""
    kt = DICOD[DICOD.index('kt_config') : DICOD.index('model = ')]
    kt = kt.replace("ltype='kl-ce'", "use_sigmoid=True, ltype='kl-bce'").replace("='ssd'", "='all'")
    new, _ = convert('child.py', f"_base_ = './retinanet.py'\n{kt}")
    assert (
        new['model']
        == merge_config(ROOT / 'configs_dev/retinanet/retinanet_r50_fpn_cls_loc.py').model.to_dict()
    )


def test_what_has_no_counterpart_is_listed(convert, tmp_path):
    lines = """
model = dict(
    backbone=dict(type='ResNeXt', groups=32, style='caffe'), bbox_head=dict(loss_bbox=dict(loss_weight=2.0)))
steps = [dict(type='Resize', img_scale=[(9, 5), (8, 5)], ratio_range=(1, 2)), dict(type='CutOut')]
files = ['a.json', 'b.json']
data = dict(train=dict(classes=('cat',), ann_file=files, pipeline=[dict(type='LoadImageFromFile'), *steps]))
fp16 = dict(loss_scale=512.0)
runner = dict(_delete_=True, type='IterBasedRunner', max_iters=90000)
lr_config = dict(policy='poly', warmup='exp')
evaluation = dict(classwise=True, interval=5000)
"""
    new, output = convert('child.py', f"_base_ = './retinanet.py'\n{lines}")
    listed = (
        "model.backbone.type='ResNeXt'",
        'model.backbone.groups=32',
        "model.backbone.style='caffe'",
        "data.train.classes=['cat']",
        "data.train.ann_file=['a.json', 'b.json']",
        'Resize.img_scale=[[9, 5], [8, 5]]',
        'Resize.ratio_range=[1, 2]',
        'pipeline: CutOut',
        "fp16={'loss_scale': 512.0}",
        "lr_config.warmup='exp'",
        'lr_config.policy=poly',
        'evaluation.classwise=True',
        'evaluation.interval=5000: steps',
        'checkpoint_config.interval=1: steps',
    )
    assert new['train_cfg'] == {'type': 'TrainLoop', 'max_iters': 90000, 'val_interval': 1}
    assert new['model']['bbox_head']['bbox_loss']['loss_weight'] == 2
    text = (tmp_path / 'new/new.py').read_text()
    assert [one for one in listed if one not in output or one not in text] == []
    assert f'left out: {len(listed)}\n' in output


def test_a_schedule_of_steps_in_a_training_of_epochs(convert):
    lines = (
        "lr_config = dict(_delete_=True, policy='step', step=[60000], by_epoch=False, warmup_by_epoch=True)\n"
    )
    new, output = convert('child.py', f"_base_ = './retinanet.py'\n{lines}")
    assert new['param_scheduler'] == []
    assert 'lr_config.warmup_by_epoch=True' in output and 'policy=step by_epoch=False' in output


def test_what_cannot_be_translated_is_refused(convert, tmp_path):
    with pytest.raises(ValueError, match='trains YOLOX; SSD, RetinaNet'):
        convert('child.py', "model = dict(type='YOLOX')")
    with pytest.raises(ValueError, match='cannot be read'):
        convert('child.py', 'model = (')
    (tmp_path / 'new').mkdir()
    (tmp_path / 'new/new.py').touch()
    with pytest.raises(ValueError, match='is there already'):
        convert('ssd300.py')


@pytest.mark.parametrize('name', ['ssd300.py', 'dicod.py'])
def test_an_old_config_is_answered_with_the_command(convert, tmp_path, name):
    """Also where a file of its `_base_` is missing."""
    command = (
        rf'is a config of MMDetection 2\.x.* python tools/misc/convert_config\.py {tmp_path / name} NEW\.py'
    )
    with pytest.raises(ValueError, match=command):
        merge_config(tmp_path / name)
