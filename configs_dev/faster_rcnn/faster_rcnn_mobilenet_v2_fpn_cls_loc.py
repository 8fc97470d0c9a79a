# Faster R-CNN distilled. Weights as published for SSD300: our choice here.
_base_ = ['../../configs/faster_rcnn/faster_rcnn_mobilenet_v2_fpn.py', '../_base_/distiller_general.py']
data_root = 'data/coco2017/'  # set this to your COCO 2017
model = dict(distiller=_base_.pop('distiller'))
