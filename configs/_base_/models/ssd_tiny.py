# SSD on a quarter of VGG16's channels with batch norm, for 96 x 96 images: trains on a CPU from scratch.
model = dict(
    type='SSD',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
    ),
    backbone=dict(type='SSDVGG', width=0.25, batch_norm=True, weights=None),
    neck=dict(
        type='SSDNeck',
        in_channels=(128, 256),
        out_channels=(128, 256, 128, 64),
        level_strides=(2, 2),
        level_paddings=(1, 1),
        l2_norm_scale=None,  # batch norm has set the scale
        batch_norm=True,
    ),
    bbox_head=dict(
        type='SSDHead',
        num_classes=80,
        in_channels=(128, 256, 128, 64),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            strides=[8, 16, 32, 64],
            ratios=[[2], [2, 3], [2, 3], [2]],
            min_sizes=[16, 30, 48, 70],  # pixels
            max_sizes=[30, 48, 70, 92],
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]),
        # Few anchors an object and few steps: a lower threshold gives each step more to learn from.
        assigner=dict(
            type='MaxIoUAssigner', pos_iou_thr=0.4, neg_iou_thr=0.4, min_pos_iou=0.0, gt_max_assign_all=False
        ),
        cls_loss=dict(type='MultiBoxLoss', neg_pos_ratio=3),
        bbox_loss=dict(type='SmoothL1Loss', beta=1.0),
        postprocess=dict(
            type='NMSPostProcess', nms_pre=1000, score_thr=0.02, iou_threshold=0.45, max_per_img=200
        ),
    ),
)
