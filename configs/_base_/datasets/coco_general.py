# COCO as RetinaNet and Faster R-CNN train on it: photos keep their shape, a batch is padded to its largest.
# data_root, train_ann, ... of the final config reach every data set (mmdet.config.resolve.resolve).
data_root = 'data/coco2017/'
train_ann = 'annotations/instances_train2017.json'
train_img = 'train2017/'
val_ann = 'annotations/instances_val2017.json'
val_img = 'val2017/'
test_ann = None  # None: test on the validation split
test_img = None

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=2,  # images per process
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DetSampler', shuffle=True, group_size=16),  # 8 processes x 2 images
    collate_fn=dict(type='collate_detection', pad_size_divisor=32),
    dataset=dict(type='CocoDataset', pipeline=train_pipeline, filter_empty_gt=True, on_bad_image='fail'),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DetSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='collate_detection', pad_size_divisor=32),
    # An image that cannot be read counts as one without detections; it is listed in bad_data.json.
    dataset=dict(type='CocoDataset', pipeline=test_pipeline, test_mode=True, on_bad_image='skip'),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', metric='bbox')
test_evaluator = val_evaluator
