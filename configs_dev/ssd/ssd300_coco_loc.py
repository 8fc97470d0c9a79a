# Localization in pixels alone: no teacher, no teacher file.
_base_ = './ssd300_coco_cls_loc.py'
model = dict(distiller=dict(kd_cls=None, teacher=None, kd_loc=dict(levels=('pixels',), pool_sizes=(4,))))
