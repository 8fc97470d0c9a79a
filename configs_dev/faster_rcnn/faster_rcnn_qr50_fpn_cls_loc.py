# Faster R-CNN distilled. Weights as published for SSD300: our choice here.
_base_ = ['../../configs/faster_rcnn/faster_rcnn_qr50_fpn.py', '../_base_/distiller_general.py']
data_root = 'data/coco2017/'  # set this to your COCO 2017
model = dict(distiller=_base_.pop('distiller'))
