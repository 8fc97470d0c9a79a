# SSDLite on EfficientNet-Lite0, which has no squeeze-and-excitation and no swish: made for small devices.
_base_ = './ssdlite_mobilenet_v3_large.py'
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(arch='timm/tf_efficientnet_lite0', out_levels=('blocks.4', 'blocks.6')),
    neck=dict(in_channels=(112, 320)),
    bbox_head=dict(in_channels=(112, 320, 512, 256, 256, 128)),
)
