# The student of tools/quickstart.sh, distilled: the same terms as ssd300_coco_cls_loc.py on smaller crops.
_base_ = ['../../configs/ssd/ssd_tiny.py', '../_base_/distiller.py']
model = dict(distiller=_base_.pop('distiller'))
model['distiller'].crop_size = 32
model['distiller'].teacher.update(
    arch='resnet18', checkpoint='work_dirs/quickstart/teacher/model_best.pth.tar'
)
model['distiller'].kd_loc.loss_weight = (0.15 / 57.63, 0.15)  # 57.63 is the mean std of its images
