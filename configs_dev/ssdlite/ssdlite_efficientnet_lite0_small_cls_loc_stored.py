# The same with stored answers and a cheap localization loss; first:
# python tools/store_teacher.py configs_dev/ssdlite/ssdlite_efficientnet_lite0_small_cls_loc.py
_base_ = './ssdlite_efficientnet_lite0_small_cls_loc.py'
model = dict(
    distiller=dict(
        teacher=dict(
            _delete_=True,
            type='StoredTeacher',
            file='cls_teachers/efficientnet_lite2_small/answers.pth',
            classes=None,
            ann_file=None,  # of the training set, to be compared
            network=_base_.model.distiller.teacher,  # for the features of kd_loc
        ),
        kd_loc=dict(crop_size=16, max_per_object=2),
    )
)
