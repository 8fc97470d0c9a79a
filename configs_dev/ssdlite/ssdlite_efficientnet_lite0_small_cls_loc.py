# The small SSDLite distilled, by a teacher that starts from ImageNet weights as well.
_base_ = ['../../configs/ssdlite/ssdlite_efficientnet_lite0_small.py', '../_base_/distiller.py']
model = dict(distiller=_base_.pop('distiller'))
model['distiller'].crop_size = 64
model['distiller'].teacher.update(
    arch='timm/tf_efficientnet_lite2', checkpoint='cls_teachers/efficientnet_lite2_small/model_best.pth.tar'
)
model['distiller'].kd_loc.levels = ('pixels', 'bn1')  # the stem of an EfficientNet
model['distiller'].kd_loc.loss_weight = (0.15 / 127.5, 0.15)  # 127.5 is the mean std of its images
# An answer that is the same for every positive of an object cost AP on FOD and BCCD; and beside recognition
# the boxes get a smaller part of each step: docs/experiments.md.
model['distiller'].kd_cls.iou_aware = True
model['distiller'].bbox_weight = 1.5
