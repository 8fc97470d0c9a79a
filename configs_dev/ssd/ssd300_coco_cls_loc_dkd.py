# The published configuration with decoupled distillation (arXiv 2203.08679) for recognition.
_base_ = './ssd300_coco_cls_loc.py'
model = dict(distiller=dict(kd_cls=dict(type='DKDLoss', alpha=1.0, beta=0.25, temperature=1.0)))
