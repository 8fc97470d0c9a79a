# SSD300-VGG16 (arXiv 1512.02325) as MMDetection has it.
model = dict(
    type='SSD',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[1, 1, 1], bgr_to_rgb=True
    ),
    backbone=dict(type='SSDVGG', weights='IMAGENET1K_FEATURES'),
    neck=dict(
        type='SSDNeck',
        in_channels=(512, 1024),
        out_channels=(512, 1024, 512, 256, 256, 256),
        level_strides=(2, 2, 1, 1),
        level_paddings=(1, 1, 0, 0),
        l2_norm_scale=20,
    ),
    bbox_head=dict(
        type='SSDHead',
        num_classes=80,
        in_channels=(512, 1024, 512, 256, 256, 256),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            strides=[8, 16, 32, 64, 100, 300],
            ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
            input_size=300,
            basesize_ratio_range=(0.15, 0.9),
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]),
        assigner=dict(
            type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.0, gt_max_assign_all=False
        ),
        cls_loss=dict(type='MultiBoxLoss', neg_pos_ratio=3),
        bbox_loss=dict(type='SmoothL1Loss', beta=1.0),
        postprocess=dict(
            type='NMSPostProcess', nms_pre=1000, score_thr=0.02, iou_threshold=0.45, max_per_img=200
        ),
    ),
)
