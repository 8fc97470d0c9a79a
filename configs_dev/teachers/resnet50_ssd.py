# The SSD students' teacher: ResNet50 on 112 x 112 crops of SSD's own augmented, mean-subtracted batches.
# The recipe is ours; the published one is not known. It writes cls_teachers/ssd/model_best.pth.tar.
_base_ = [
    '../../configs/_base_/datasets/coco_ssd300.py',
    './_base_/schedule_teacher.py',
    '../../configs/_base_/default_runtime.py',
]
data_root = 'data/coco2017/'  # set this to your COCO 2017
model = dict(
    type='CropClassifier',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[1, 1, 1], bgr_to_rgb=True
    ),
    arch='resnet50',  # any classifier of torchvision, or 'timm/NAME'
    num_classes=80,
    classes=None,
    crop_size=112,
    weights=None,  # 'imagenet', or a file with ImageNet weights; the last layer starts at random
    label_smoothing=0.1,
    box_jitter=0.0,  # SSD's augmentation moves the boxes' surroundings enough
    min_side=0.0,
)
val_evaluator = dict(_delete_=True, type='CropAccuracy')
test_evaluator = val_evaluator
train_dataloader = dict(sampler=dict(times=1, repeat_thr=None))
default_hooks = dict(
    checkpoint=dict(save_best='crops/top1'),
    save_teacher=dict(type='SaveTeacherHook', file='cls_teachers/ssd/model_best.pth.tar'),
)
