_base_ = [
    '../_base_/models/faster_rcnn_mobilenet_v2_fpn.py',
    '../_base_/datasets/coco_general.py',
    '../_base_/schedule_1x.py',
    '../_base_/default_runtime.py',
]
env_cfg = dict(cudnn_benchmark=False)  # batches of many sizes
