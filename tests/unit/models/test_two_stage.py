"""What is Faster R-CNN's own: pooling, padding rows, objects among the proposals, two sets of losses."""

from pathlib import Path
from typing import cast

import pytest
import torch
from torchvision.ops import roi_align

from mmdet.models.detectors import TwoStageDetector
from mmdet.structures import Anchors
from tests.helpers.students import FAMILIES, build, make_batch, model_config


@pytest.fixture(scope='module')
def model() -> TwoStageDetector:
    config = model_config('faster_rcnn', Path('no_teacher.pth'))
    config.pop('distiller')
    return cast(TwoStageDetector, build(config))


def test_each_roi_is_pooled_on_the_level_of_its_size(model: TwoStageDetector) -> None:
    """Levels by sqrt(area): below 112, 224, 448 pixels, and above (arXiv 1612.03144, Eq 1)."""
    feats = [torch.randn(2, 16, 512 // stride, 512 // stride) for stride in (4, 8, 16, 32)]
    sides = torch.tensor([20.0, 111.0, 113.0, 225.0, 449.0])
    rois = torch.stack([torch.zeros(5), torch.full((5,), 3.0), sides, sides + 3], 1).expand(2, 5, 4)
    pooled = model.roi_head.pool(feats, rois).view(2, 5, 16, 7, 7)
    for image in range(2):
        for roi, level in enumerate([0, 0, 1, 2, 3]):
            boxes = [rois[image, roi][None]]
            x = feats[level][image : image + 1]
            alone = roi_align(x, boxes, 7, 1 / (4 * 2**level), sampling_ratio=0, aligned=True)
            torch.testing.assert_close(pooled[image, roi], alone[0])


@pytest.mark.filterwarnings('ignore')  # of tracing
def test_a_traced_pool_takes_any_number_of_rois_on_a_level(model: TwoStageDetector) -> None:
    feats = [torch.randn(1, 16, 256 // stride, 256 // stride) for stride in (4, 8, 16, 32)]
    rois = torch.tensor([[[0.0, 0.0, 20.0, 20.0], [0.0, 0.0, 150.0, 150.0]]])
    pool = torch.jit.trace(lambda *x: model.roi_head.pool(x[:4], x[4]), (*feats, rois))
    more = rois.repeat(1, 2, 1)
    torch.testing.assert_close(pool(*feats, more), model.roi_head.pool(feats, more))


def test_padding_rows_are_no_detections(model: TwoStageDetector) -> None:
    feats = [torch.randn(1, 16, 64 // stride, 64 // stride) for stride in (4, 8, 16, 32)]
    rois = torch.tensor([[[0.0, 0.0, 30.0, 30.0], [0.0, 0.0, 0.0, 0.0], [64.0, 9.0, 64.0, 30.0]]])
    outputs = model.roi_head(feats, Anchors(rois, [3]))
    assert outputs.box_deltas.shape == (1, 3, 3, 4)
    assert (model.roi_head.scores(outputs)[0].amax(1) > 0).tolist() == [True, False, False]
    model.roi_head.postprocess.score_thr = 0.0
    (found,) = model.roi_head.predict(outputs, torch.tensor([[64, 64]]))
    assert len(found.scores) == 3  # one box of each class


def test_the_second_stage_learns_from_the_objects_and_a_sample_of_proposals(model: TwoStageDetector) -> None:
    data = model.data_preprocessor(make_batch(FAMILIES['faster_rcnn'].scale), training=True)
    gt = data['gt']
    step = model.train().head_step(model.extract_feat(data['inputs']), gt)
    assert step.losses.keys() == {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox'}
    assert step.outputs.cls_logits.shape == (3, 64, 4)
    rois = step.outputs.anchors.boxes
    assert not rois.requires_grad
    for image, row in gt.valid.nonzero().tolist():
        (place,) = (rois[image] == gt.bboxes[image, row]).all(1).nonzero()[:, 0].tolist()
        assert step.matched[image, place] == row
    assert (step.matched >= 0).sum(1).max() <= 16  # a quarter of the sample
    limits = gt.img_shape.flip(1).repeat(1, 2)[:, None]
    assert ((rois >= 0) & (rois <= limits)).all()
