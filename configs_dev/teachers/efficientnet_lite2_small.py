# The small SSDLite's teacher: EfficientNet-Lite2, from ImageNet weights, on 64 x 64 crops of its batches.
# It writes cls_teachers/efficientnet_lite2_small/model_best.pth.tar.
_base_ = '../../configs/ssdlite/ssdlite_efficientnet_lite0_small.py'
model = dict(
    _delete_=True,
    type='CropClassifier',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    arch='timm/tf_efficientnet_lite2',
    num_classes=80,
    classes=None,
    crop_size=64,
    weights='imagenet',
    label_smoothing=0.1,
)
val_evaluator = dict(_delete_=True, type='CropAccuracy')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_iters=1000, val_interval=250)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=1000, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(save_best='crops/top1'),
    save_teacher=dict(
        type='SaveTeacherHook', file='cls_teachers/efficientnet_lite2_small/model_best.pth.tar'
    ),
)
