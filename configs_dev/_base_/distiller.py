# The published distillation (arXiv 2106.05209): recognition and localization.
# A distilled config moves it into its model: `model = dict(distiller=_base_.pop('distiller'))`.
distiller = dict(
    type='ClassifierDistiller',
    crop_size=112,
    teacher=dict(
        type='FrozenTeacher',
        arch='resnet50',
        checkpoint='cls_teachers/ssd/model_best.pth.tar',
        num_classes=80,
        classes=None,
        mean=None,
        std=None,
    ),
    kd_cls=dict(type='SoftmaxKDLoss', temperature=2.0, loss_weight=0.4),
    kd_loc=dict(type='CropL1Loss', levels=('pixels', 'stem'), pool_sizes=(4, 8), loss_weight=0.15),
)
