"""From a batch as the data loader hands it over to the network's input.

N images · H x W pixels of the padded canvas
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mmdet.models.device_decoding import draw_images, pixels_inside
from mmdet.registry import MODELS
from mmdet.structures import EncodedImages, GroundTruth, Normalization


@MODELS.register_module()
class DetDataPreprocessor(BaseDataPreprocessor):
    """Move a batch to the device and normalize its pixels there.

    Args:
        mean: Mean pixel, RGB (BGR with `bgr_to_rgb=False`), 0..255.
        std: Standard deviation of a pixel, same order.
        bgr_to_rgb: Swap the channels first; images come from the loader as OpenCV's BGR.
    """

    mean: Tensor  # (3,)
    std: Tensor  # (3,)

    def __init__(self, mean: Sequence[float], std: Sequence[float], bgr_to_rgb: bool = True) -> None:
        super().__init__(non_blocking=True)  # from pinned memory a copy to the GPU runs beside the step
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f'mean and std are three numbers each, std above 0; got {mean} and {std}')
        self.bgr_to_rgb = bgr_to_rgb
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32), persistent=False)

    @property
    def normalization(self) -> Normalization:
        """How the images that `forward` returns are normalized, for a teacher.

        Raises:
            ValueError: They are BGR; teachers are trained on, and asked about, RGB alone.
        """
        if not self.bgr_to_rgb:
            raise ValueError(
                'teachers see the images of the student, and theirs are RGB: set '
                'model.data_preprocessor.bgr_to_rgb=True, mean and std in that order, and start from '
                'weights of RGB images; or train without a distiller'
            )
        return Normalization(self.mean, self.std)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Normalize a batch.

        data: `inputs` uint8 (N, 3, H, W), or EncodedImages, which are decoded and drawn here; `gt`
            GroundTruth; `bad_images` is for the hooks
        returns `inputs` float32 (N, 3, H, W), 0 (the mean color) in the padding, and `gt`, on the device
        """
        inputs = data['inputs']
        images: Tensor
        if isinstance(inputs, EncodedImages):  # its files stay on the CPU, where decoders take them
            images = draw_images(inputs, self.mean.device, data['gt'].img_id.tolist())
        else:
            images = self.cast_data(inputs)
        gt: GroundTruth = self.cast_data(data['gt'])
        if self.bgr_to_rgb:
            images = images.flip(1)
        images = (images.float() - self.mean[:, None, None]) / self.std[:, None, None]
        bboxes = torch.cat([torch.zeros_like(gt.img_shape), gt.img_shape.flip(1)], 1)  # (N, 4) of the images
        height, width = images.shape[-2:]
        return {'inputs': images * pixels_inside(bboxes, (height, width)), 'gt': gt}
