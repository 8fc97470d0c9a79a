# How teachers are trained. Ours: the paper's recipe is not known. On COCO not measured.
train_cfg = dict(type='TrainLoop', max_epochs=30, val_interval=1)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4, nesterov=True),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=30, convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=64)  # 8 processes x 8 images
