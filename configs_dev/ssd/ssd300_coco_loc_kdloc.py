# Localization in pixels and in the teacher's features, no recognition.
_base_ = './ssd300_coco_cls_loc.py'
row = 'loc_kdloc'
