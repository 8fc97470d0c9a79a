"""What the toolbox returns for one image."""

from mmengine.structures import BaseDataElement, InstanceData


class DetDataSample(BaseDataElement):
    """Detections of one image, with MMDetection's names.

    Meta information: `img_id`, `ori_shape` (h, w), and `img_path` where the image came from a file.
    `pred_instances`: `bboxes` (D, 4) xyxy in pixels of the original image, `scores` (D,) best first,
    `labels` (D,) in [0, K).
    """

    pred_instances: InstanceData
