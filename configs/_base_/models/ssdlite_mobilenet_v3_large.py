# SSDLite 320 (arXiv 1801.04381, 1905.02244) with the taps of torchvision's model and MMDetection's anchors.
model = dict(
    type='SSD',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
    ),
    backbone=dict(
        type='ClassifierBackbone',
        arch='mobilenet_v3_large',
        out_levels=(
            'features.13.block.0',
            32,
        ),  # torchvision's: the last expansion of stride 16, the last layer
        weights='imagenet',
    ),
    neck=dict(type='SSDLiteNeck', in_channels=(672, 960), extra_channels=(512, 256, 256, 128)),
    bbox_head=dict(
        type='SSDHead',
        num_classes=80,
        in_channels=(672, 960, 512, 256, 256, 128),
        depthwise=True,
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            strides=[16, 32, 64, 107, 160, 320],
            ratios=[[2, 3], [2, 3], [2, 3], [2, 3], [2, 3], [2, 3]],
            min_sizes=[48, 100, 150, 202, 253, 304],  # pixels
            max_sizes=[100, 150, 202, 253, 304, 320],
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
