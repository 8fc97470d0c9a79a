# SSDLite distilled. Its weights are those published for SSD300, not tuned for it.
_base_ = ['../../configs/ssdlite/ssdlite_efficientnet_lite0.py', '../_base_/distiller.py']
data_root = 'data/coco2017/'  # set this to your COCO 2017
model = dict(distiller=_base_.pop('distiller'))
model['distiller'].kd_loc.loss_weight = (0.15 / 127.5, 0.15)  # 127.5 is the mean std of its images
