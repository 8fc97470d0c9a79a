# Localization in pixels alone: no teacher, no teacher file.
_base_ = './ssd300_coco_cls_loc.py'
row = 'loc'
