# The published configuration with DIST (arXiv 2205.10536) for recognition.
_base_ = './ssd300_coco_cls_loc.py'
model = dict(distiller=dict(kd_cls=dict(type='DISTLoss', beta=1.0, gamma=1.0, temperature=1.0)))
