_base_ = [
    '../_base_/models/fcos_r50_fpn.py',
    '../_base_/datasets/coco_general.py',
    '../_base_/schedule_1x.py',
    '../_base_/default_runtime.py',
]
optim_wrapper = dict(optimizer=dict(lr=0.01))
env_cfg = dict(cudnn_benchmark=False)  # batches of many sizes
