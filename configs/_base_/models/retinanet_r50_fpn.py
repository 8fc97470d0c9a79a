# RetinaNet-R50-FPN (arXiv 1708.02002) as MMDetection has it.
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
    ),
    backbone=dict(type='ResNet', depth=50, weights='imagenet', frozen_stages=1, norm_eval=True),
    neck=dict(
        type='FPN',
        in_channels=(256, 512, 1024, 2048),
        out_channels=256,
        start_level=1,
        num_outs=5,
        add_extra_convs='on_input',
    ),
    bbox_head=dict(
        type='RetinaHead',
        num_classes=80,
        in_channels=256,
        anchor_generator=dict(
            type='AnchorGenerator',
            strides=[8, 16, 32, 64, 128],
            ratios=[0.5, 1.0, 2.0],
            scales=[4 * 2 ** (step / 3) for step in range(3)],  # thirds of an octave
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0),
        cls_loss=dict(type='FocalLoss', gamma=2.0, alpha=0.25),
        bbox_loss=dict(type='SmoothL1Loss', beta=0.0),
        postprocess=dict(
            type='NMSPostProcess', nms_pre=1000, score_thr=0.05, iou_threshold=0.5, max_per_img=100
        ),
    ),
)
