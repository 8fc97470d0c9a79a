# ResNet18 in place of ResNet50: the weakest teacher of the paper's ablation.
# It writes cls_teachers/ssd_resnet18/model_best.pth.tar, beside the main teacher.
_base_ = './resnet50_ssd.py'
model = dict(arch='resnet18')
default_hooks = dict(save_teacher=dict(file='cls_teachers/ssd_resnet18/model_best.pth.tar'))
