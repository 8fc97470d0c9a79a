# SSD300 distilled as published: recognition and localization (arXiv 2106.05209).
_base_ = ['../../configs/ssd/ssd300.py', '../_base_/distiller.py']
data_root = 'data/coco2017/'  # set this to your COCO 2017
model = dict(distiller=_base_.pop('distiller'))
