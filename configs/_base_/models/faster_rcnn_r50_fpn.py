# Faster R-CNN-R50-FPN (arXiv 1506.01497, 1612.03144) as MMDetection has it.
model = dict(
    type='TwoStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
    ),
    backbone=dict(type='ResNet', depth=50, weights='imagenet', frozen_stages=1, norm_eval=True),
    neck=dict(type='FPN', in_channels=(256, 512, 1024, 2048), out_channels=256, num_outs=5),
    rpn_head=dict(
        type='RPNHead',
        in_channels=256,
        anchor_generator=dict(
            type='AnchorGenerator', strides=[4, 8, 16, 32, 64], ratios=[0.5, 1.0, 2.0], scales=[8]
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        assigner=dict(
            type='SampledAssigner',
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
            num=256,
            pos_fraction=0.5,
        ),
        cls_loss=dict(type='FocalLoss', gamma=0.0, alpha=-1),  # binary cross-entropy
        bbox_loss=dict(type='SmoothL1Loss', beta=0.0),
        postprocess=dict(
            type='NMSPostProcess',
            nms_pre=1000,
            score_thr=0.0,
            iou_threshold=0.7,
            max_per_img=1000,
            group='level',
        ),
        train_postprocess=dict(
            type='NMSPostProcess',
            nms_pre=2000,
            score_thr=0.0,
            iou_threshold=0.7,
            max_per_img=1000,
            group='level',
        ),
    ),
    roi_head=dict(
        type='RoIHead',
        num_classes=80,
        in_channels=256,
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]),
        assigner=dict(
            type='SampledAssigner',
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, match_low_quality=False),
            num=512,
            pos_fraction=0.25,
        ),
        cls_loss=dict(type='CrossEntropyLoss'),
        bbox_loss=dict(type='SmoothL1Loss', beta=0.0),
        postprocess=dict(
            type='NMSPostProcess', nms_pre=1000, score_thr=0.05, iou_threshold=0.5, max_per_img=100
        ),
    ),
)
