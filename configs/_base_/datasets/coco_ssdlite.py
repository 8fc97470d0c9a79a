# COCO as SSDLite trains on it: SSD300's pipeline at 320 x 320.
_base_ = './coco_ssd300.py'
train_pipeline = _base_.train_pipeline
train_pipeline[4].scale = (320, 320)  # Resize
test_pipeline = _base_.test_pipeline
test_pipeline[2].scale = (320, 320)  # Resize
train_dataloader = dict(batch_size=24, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
