# Recognition alone.
_base_ = './ssd300_coco_cls_loc.py'
row = 'cls'
