# The teacher is asked about two predicted boxes of each object.
_base_ = '../../configs_dev/ssdlite/ssdlite_efficientnet_lite0_small_cls_loc.py'
custom_imports = dict(imports=['benchmarks.candidates'])
model = dict(
    distiller=dict(
        type='ProposalDistiller',
        kd_cls=dict(iou_aware=False),
        kd_loc=dict(crop_size=16, max_per_object=2),
    )
)
