# The SSD students' teacher: ResNet50 on 112 x 112 crops of SSD's own augmented, mean-subtracted batches.
# The recipe is ours; the published one is not known. It writes cls_teachers/ssd/model_best.pth.tar.
_base_ = '../../configs/ssd/ssd300.py'
data_root = 'data/coco2017/'  # set this to your COCO 2017
model = dict(
    _delete_=True,
    type='CropClassifier',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[1, 1, 1], bgr_to_rgb=True
    ),
    arch='resnet50',
    num_classes=80,
    classes=None,
    crop_size=112,
    weights=None,  # a file with ImageNet weights in torchvision's layout; the last layer starts at random
    label_smoothing=0.1,
)
val_evaluator = dict(_delete_=True, type='CropAccuracy')
test_evaluator = val_evaluator
train_dataloader = dict(sampler=dict(times=1))
train_cfg = dict(max_epochs=30)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4, nesterov=True),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=30, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(save_best='crops/top1'))
custom_hooks = [
    dict(type='BadDataHook'),
    dict(type='CurvesHook'),
    dict(type='SaveTeacherHook', file='cls_teachers/ssd/model_best.pth.tar'),
]
