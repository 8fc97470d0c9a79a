_base_ = [
    '../_base_/models/ssd300.py',
    '../_base_/datasets/coco_ssd300.py',
    '../_base_/schedule_ssd.py',
    '../_base_/default_runtime.py',
]
