# FCOS distilled: per class a two-way KL, as sigmoid students have it. The weights are those of SSD300.
_base_ = ['../../configs/fcos/fcos_r50_fpn.py', '../_base_/distiller_general.py']
data_root = 'data/coco2017/'  # set this to your COCO 2017
model = dict(distiller=_base_.pop('distiller'))
model['distiller'].kd_cls.type = 'SigmoidKDLoss'
