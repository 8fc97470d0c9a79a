# RetinaNet on MobileNetV2; the layers that its FPN starts from, and what stays frozen, are ours.
_base_ = './retinanet_r50_fpn.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='ClassifierBackbone',
        arch='mobilenet_v2',
        out_levels=('features.3', 'features.6', 'features.13', 'features.17'),  # strides 4, 8, 16, 32
        weights='imagenet',
        frozen_levels=1,
        norm_eval=True,
    ),
    neck=dict(in_channels=(24, 32, 96, 320)),
)
