# One teacher for RetinaNet (sigmoid) and Faster R-CNN (softmax): ResNet50 on 112 x 112 crops of photos that
# keep their shape, trained with softmax cross-entropy and sigmoid focal loss jointly, as in the paper. The
# weights of the two losses, the box jitter and the schedule are ours, and not measured.
# It writes cls_teachers/general/model_best.pth.tar.
_base_ = [
    '../../configs/_base_/datasets/coco_general.py',
    './_base_/schedule_teacher.py',
    '../../configs/_base_/default_runtime.py',
]
data_root = 'data/coco2017/'  # set this to your COCO 2017
model = dict(
    type='CropClassifier',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    arch='resnet50',  # any classifier of torchvision, or 'timm/NAME'
    num_classes=80,
    classes=None,
    crop_size=112,
    weights=None,  # 'imagenet', or a file with ImageNet weights; the last layer starts at random
    label_smoothing=0.1,
    focal_weight=1.0,
    box_jitter=0.1,  # the only augmentation besides the flip
    min_side=0.0,
)
val_evaluator = dict(_delete_=True, type='CropAccuracy')
test_evaluator = val_evaluator
train_dataloader = dict(batch_size=8, sampler=dict(repeat_thr=None))
default_hooks = dict(
    checkpoint=dict(save_best='crops/top1'),
    save_teacher=dict(type='SaveTeacherHook', file='cls_teachers/general/model_best.pth.tar'),
)
