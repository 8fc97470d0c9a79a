# SSDLite distilled. Its weights are those published for SSD300, not tuned for it.
_base_ = ['../../configs/ssdlite/ssdlite_mobilenet_v3_large.py', '../_base_/distiller.py']
data_root = 'data/coco2017/'  # set this to your COCO 2017
model = dict(distiller=_base_.pop('distiller'))
model['distiller'].kd_loc.loss_weight = (0.15 / 57.63, 0.15)  # 57.63 is the mean std of its images
