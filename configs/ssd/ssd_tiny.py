# The student of tools/quickstart.sh: a small SSD on small photos, minutes on a CPU from scratch.
_base_ = [
    '../_base_/models/ssd_tiny.py',
    '../_base_/datasets/coco_ssd300.py',
    '../_base_/default_runtime.py',
]
data_root = 'work_dirs/quickstart/data/'  # drawn by tools/misc/make_synthetic.py
# SSD's crops and expansions pay off over many epochs; this recipe sees each photo a handful of times.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=(96, 96), keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = _base_.test_pipeline
test_pipeline[2].scale = (96, 96)  # Resize
train_dataloader = dict(
    batch_size=16, num_workers=1, sampler=dict(times=1), dataset=dict(pipeline=train_pipeline)
)
val_dataloader = dict(batch_size=16, num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(type='TrainLoop', max_iters=350, val_interval=1)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=1e-2),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=350, eta_min=1e-5),
]
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=-1))
