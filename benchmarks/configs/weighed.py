# The stored teacher's student, the localization of each positive weighed in one of the ways of candidates.py.
_base_ = '../../configs_dev/ssdlite/ssdlite_efficientnet_lite0_small_cls_loc_stored.py'
custom_imports = dict(imports=['benchmarks.candidates'])
model = dict(distiller=dict(type='WeighedDistiller', weigh='gate', kd_loc=dict(type='WeighedCropL1Loss')))
