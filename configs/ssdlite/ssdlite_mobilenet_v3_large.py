_base_ = [
    '../_base_/models/ssdlite_mobilenet_v3_large.py',
    '../_base_/datasets/coco_ssdlite.py',
    '../_base_/schedule_ssdlite.py',
    '../_base_/default_runtime.py',
]
channels_last = True  # memory layout: depthwise convolutions are faster in it, on a CPU too
