# The published distillation by the teacher of photos that keep their shape.
_base_ = './distiller.py'
distiller = dict(teacher=dict(checkpoint='cls_teachers/general/model_best.pth.tar'))
