# For a set of your own: a pretrained student and teacher, and recognition alone: docs/results.md.
_base_ = './ssdlite_efficientnet_lite0_small_cls_loc.py'
model = dict(distiller=dict(kd_loc=None))
