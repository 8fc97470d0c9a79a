# SSD512 distilled. The published weights are known for SSD300; 0.15 for localization is our choice here.
_base_ = ['../../configs/ssd/ssd512.py', '../_base_/distiller.py']
data_root = 'data/coco2017/'  # set this to your COCO 2017
model = dict(distiller=_base_.pop('distiller'))
