"""COCO-format data: reading, sampling, augmenting, batching."""
