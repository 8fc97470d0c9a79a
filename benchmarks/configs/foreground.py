# The stored teacher's student; recognition compares over the classes alone.
_base_ = '../../configs_dev/ssdlite/ssdlite_efficientnet_lite0_small_cls_loc_stored.py'
custom_imports = dict(imports=['benchmarks.candidates'])
model = dict(distiller=dict(kd_cls=dict(type='ForegroundKDLoss')))
