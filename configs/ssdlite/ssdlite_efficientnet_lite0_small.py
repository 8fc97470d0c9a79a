# SSDLite on small photos and few of them: from ImageNet weights to a detector in 2,500 steps.
_base_ = [
    '../_base_/models/ssdlite_efficientnet_lite0.py',
    '../_base_/datasets/coco_ssd300.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(out_levels=('blocks.2', 'blocks.4', 'blocks.6'), frozen_levels=2),
    neck=dict(in_channels=(40, 112, 320), extra_channels=(256, 128)),
    bbox_head=dict(
        in_channels=(40, 112, 320, 256, 128),
        anchor_generator=dict(
            strides=[8, 16, 32, 64, 107],
            ratios=[[2, 3], [2, 3], [2, 3], [2, 3], [2]],
            min_sizes=[16, 32, 56, 88, 128],  # pixels
            max_sizes=[32, 56, 88, 128, 160],
        ),
        assigner=dict(pos_iou_thr=0.4, neg_iou_thr=0.4),
    ),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='MinIoURandomCrop', min_ious=(0.1, 0.3, 0.5, 0.7, 0.9), min_crop_size=0.3),
    dict(type='Resize', scale=(160, 160), keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = _base_.test_pipeline
test_pipeline[2].scale = (160, 160)  # Resize
train_dataloader = dict(
    batch_size=16, num_workers=1, sampler=dict(times=1), dataset=dict(pipeline=train_pipeline)
)
val_dataloader = dict(batch_size=16, num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(type='TrainLoop', max_iters=2500, val_interval=6)  # epochs
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=1e-2),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=2500, eta_min=1e-5),
]
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=-1))
channels_last = True  # memory layout: depthwise convolutions are faster in it, on a CPU too
