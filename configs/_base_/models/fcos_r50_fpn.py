# FCOS-R50-FPN (arXiv 1904.01355) with group norm and GIoU, without center sampling.
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
        add_extra_convs='on_output',
        relu_before_extra_convs=True,
    ),
    bbox_head=dict(
        type='FCOSHead',
        num_classes=80,
        in_channels=256,
        anchor_generator=dict(  # the cells themselves: their centers predict
            type='AnchorGenerator',
            strides=[8, 16, 32, 64, 128],
            ratios=[1.0],
            scales=[1.0],
            center_offset=0.5,
        ),
        bbox_coder=dict(type='DistanceBBoxCoder'),
        assigner=dict(
            type='CenterAssigner',
            regress_ranges=((0, 64), (64, 128), (128, 256), (256, 512), (512, 1e8)),
        ),
        cls_loss=dict(type='FocalLoss', gamma=2.0, alpha=0.25),
        bbox_loss=dict(type='GIoULoss'),
        postprocess=dict(
            type='NMSPostProcess', nms_pre=1000, score_thr=0.05, iou_threshold=0.5, max_per_img=100
        ),
    ),
)
