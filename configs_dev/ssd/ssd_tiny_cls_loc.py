# The embedded default, distilled: the same terms as ssd300_coco_cls_loc.py on smaller crops.
_base_ = '../../configs/ssd/ssd_tiny.py'
model = dict(
    distiller=dict(
        type='ClassifierDistiller',
        crop_size=32,
        teacher=dict(
            type='FrozenTeacher',
            arch='resnet18',
            checkpoint='work_dirs/quickstart/teacher/model_best.pth.tar',
            num_classes=80,
            classes=None,
            mean=None,
            std=None,
        ),
        kd_cls=dict(type='SoftmaxKDLoss', temperature=2.0, loss_weight=0.4),
        kd_loc=dict(type='CropL1Loss', levels=('pixels', 'stem'), pool_sizes=(4, 8), loss_weight=0.15),
    )
)
