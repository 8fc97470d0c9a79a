# Faster R-CNN on QR50: ResNet50 with a quarter of the channels, from random weights. The FPN width is ours.
_base_ = './faster_rcnn_r50_fpn.py'
model = dict(
    backbone=dict(base_channels=16, weights=None, frozen_stages=-1, norm_eval=False),
    neck=dict(in_channels=(64, 128, 256, 512)),
)
