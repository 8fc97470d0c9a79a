default_scope = 'mmdet'
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', interval=1, save_best='coco/bbox_mAP'),
    bad_data=dict(type='BadDataHook'),
    curves=dict(type='CurvesHook'),
    progress=dict(type='ProgressHook'),
    distillation_monitor=dict(type='DistillationMonitorHook'),
)
env_cfg = dict(
    cudnn_benchmark=True,  # images of one size; --deterministic turns it off
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(timeout=1800),  # seconds; nccl on GPUs, gloo without
)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
randomness = dict(seed=0)
load_from = None  # a checkpoint whose weights to start from
resume = False
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
