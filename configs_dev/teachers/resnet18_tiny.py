# The teacher of ssd_tiny (tools/quickstart.sh): ResNet18 on 32 x 32 crops of the student's own batches.
# It writes model_best.pth.tar into its work dir.
_base_ = '../../configs/ssd/ssd_tiny.py'
model = dict(
    _delete_=True,
    type='CropClassifier',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
    ),
    arch='resnet18',
    num_classes=80,
    classes=None,
    crop_size=32,
    weights=None,
    label_smoothing=0.1,
)
val_evaluator = dict(_delete_=True, type='CropAccuracy')
test_evaluator = val_evaluator
train_cfg = dict(max_iters=240)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=30, end=240, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(save_best='crops/top1'),
    save_teacher=dict(type='SaveTeacherHook'),
)
