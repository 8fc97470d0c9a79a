# The same with stored answers, first: python tools/store_teacher.py configs_dev/ssd/ssd_tiny_cls_loc.py
_base_ = './ssd_tiny_cls_loc.py'
model = dict(
    distiller=dict(
        teacher=dict(
            _delete_=True,
            type='StoredTeacher',
            file='work_dirs/quickstart/teacher/answers.pth',
            classes=None,
            ann_file=None,  # of the training set, to be compared
            network=_base_.model.distiller.teacher,  # for the features of kd_loc
        )
    )
)
