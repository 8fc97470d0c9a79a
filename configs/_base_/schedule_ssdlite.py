train_cfg = dict(type='TrainLoop', max_epochs=120, val_interval=5)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.015, momentum=0.9, weight_decay=4e-5)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=120, eta_min=0),
]
auto_scale_lr = dict(enable=False, base_batch_size=192)  # 8 processes x 24 images
