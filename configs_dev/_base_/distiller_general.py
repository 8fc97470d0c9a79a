# The published distillation by the teacher of photos that keep their shape.
_base_ = './distiller.py'
distiller = dict(
    teacher=dict(checkpoint='cls_teachers/general/model_best.pth.tar'),
    kd_loc=dict(loss_weight=(0.15 / 57.63, 0.15)),  # pixels, stem; 57.63 is the mean std of these students
)
