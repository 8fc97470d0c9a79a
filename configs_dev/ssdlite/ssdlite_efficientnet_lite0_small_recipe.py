# For a set of your own: a pretrained student and teacher, and a localization loss that costs little.
_base_ = './ssdlite_efficientnet_lite0_small_cls_loc.py'
model = dict(distiller=dict(kd_loc=dict(crop_size=16, max_per_object=2)))
