# ResNeXt101 in place of ResNet50: the strongest teacher of the paper's ablation, with the worst student.
# It writes cls_teachers/ssd_resnext101/model_best.pth.tar, beside the main teacher.
_base_ = './resnet50_ssd.py'
model = dict(arch='resnext101_32x8d')  # the paper does not say which ResNeXt101
default_hooks = dict(save_teacher=dict(file='cls_teachers/ssd_resnext101/model_best.pth.tar'))
