# The published configuration with standardized logits (arXiv 2403.01427) for recognition.
_base_ = './ssd300_coco_cls_loc.py'
model = dict(distiller=dict(kd_cls=dict(type='StandardizedKDLoss')))
