# Recognition alone.
_base_ = './ssd300_coco_cls_loc.py'
model = dict(distiller=dict(kd_loc=None))
