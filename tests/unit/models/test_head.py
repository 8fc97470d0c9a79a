"""A head of one's own: layers and `forward` suffice, and its parameters keep their names."""

import pytest
import torch
from torch import Tensor, nn

from mmdet.models.heads.head import Head, flatten_level
from mmdet.registry import MODELS
from mmdet.structures import GroundTruth, HeadOutputs

K, CHANNELS = 3, 8
DETECTOR = {
    'type': 'SingleStageDetector',
    'data_preprocessor': {'type': 'DetDataPreprocessor', 'mean': [0, 0, 0], 'std': [1, 1, 1]},
    'backbone': {'type': 'OneLevel'},
    'bbox_head': {
        'type': 'PlainHead',
        'num_classes': K,
        'anchor_generator': {
            'type': 'SSDAnchorGenerator',
            'strides': [8],
            'ratios': [[2]],
            'min_sizes': [16],
            'max_sizes': [32],
        },
        'bbox_coder': {'type': 'DeltaXYWHBBoxCoder'},
        'assigner': {'type': 'MaxIoUAssigner', 'pos_iou_thr': 0.5, 'neg_iou_thr': 0.5},
        'cls_loss': {'type': 'MultiBoxLoss'},
        'bbox_loss': {'type': 'SmoothL1Loss'},
        'postprocess': {'type': 'NMSPostProcess', 'score_thr': 0.0},
    },
}


class OneLevel(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, CHANNELS, 8, stride=8))

    def forward(self, images: Tensor) -> list[Tensor]:
        return [super().forward(images)]


class PlainHead(Head):
    """Not wrapped: cls_convs.0.weight, a name that MMDetection 2.x gave SSD's head."""

    def __init__(self, num_classes: int, **parts: object) -> None:
        super().__init__(num_classes, **parts)
        per_cell = self.anchor_generator.num_base_anchors[0]
        self.values = self.cls_loss.channels(num_classes)
        self.cls_convs = nn.ModuleList([nn.Conv2d(CHANNELS, per_cell * self.values, 1)])
        self.reg_convs = nn.ModuleList([nn.Conv2d(CHANNELS, per_cell * 4, 1)])

    def forward(self, feats: list[Tensor]) -> HeadOutputs:
        (x,) = feats
        anchors = self.anchor_generator([tuple(x.shape[2:])], x.device)
        logits, deltas = self.cls_convs[0](x), self.reg_convs[0](x)
        return HeadOutputs(flatten_level(logits, self.values), flatten_level(deltas, 4), anchors)


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    for part in (OneLevel, PlainHead):
        monkeypatch.setitem(MODELS.module_dict, part.__name__, part)
    torch.manual_seed(0)
    return MODELS.build(DETECTOR)


def ground_truth(valid: list[list[bool]]) -> GroundTruth:
    rows = torch.tensor(valid)
    shape = torch.full((len(rows), 2), 64)
    bboxes = torch.tensor([[8.0, 8.0, 40.0, 40.0], [0.0, 16.0, 20.0, 60.0]]).expand(len(rows), 2, 4)
    labels = torch.tensor([[2, 0]]).expand(len(rows), 2)
    none = torch.zeros_like(labels)
    return GroundTruth(
        torch.arange(len(rows)), shape, shape, bboxes * rows[..., None], labels * rows, rows, none
    )


def test_it_loads_its_own_checkpoint(detector: nn.Module) -> None:
    state = {name: torch.full_like(value, 0.5) for name, value in detector.state_dict().items()}
    assert 'bbox_head.cls_convs.0.weight' in state
    detector.load_state_dict(state)
    assert all((parameter == 0.5).all() for parameter in detector.parameters())


def test_it_learns_detects_and_hands_over_its_positives(detector: nn.Module) -> None:
    images, gt = torch.rand(2, 3, 64, 64), ground_truth([[True, True], [False, False]])
    losses = detector(images, gt, mode='loss')
    assert set(losses) == {'loss_cls', 'loss_bbox'}
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in detector.parameters())
    step = detector.head_step(detector.extract_feat(images), gt)
    positives = detector.head.positives(step.outputs, step.matched, gt)
    assert positives.cls_logits.shape == (int((step.matched >= 0).sum()), K + 1)
    assert set(positives.gt_index.tolist()) == {0, 1}
    assert positives.bboxes.requires_grad
    empty, full = detector.eval()(images, gt, mode='predict')
    assert len(empty.pred_instances.bboxes) == len(full.pred_instances.bboxes) == 200


def test_perfect_deltas_decode_to_the_matched_objects(detector: nn.Module) -> None:
    gt = ground_truth([[True, True]])
    outputs = detector.head(detector.extract_feat(torch.rand(1, 3, 64, 64)))
    matched = detector.head.match(outputs.anchors, gt)
    perfect = detector.head.bbox_coder.encode(outputs.anchors.boxes, gt.bboxes[0, matched[0].clamp(min=0)])
    positives = detector.head.positives(outputs._replace(box_deltas=perfect[None]), matched, gt)
    torch.testing.assert_close(positives.bboxes, gt.bboxes[0, positives.gt_index], atol=1e-4, rtol=0)


def test_nothing_in_the_batch_gives_box_losses_of_0(detector: nn.Module) -> None:
    gt = ground_truth([[False, False], [False, False]])
    losses = detector(torch.rand(2, 3, 64, 64), gt, mode='loss')
    assert losses['loss_bbox'] == 0
    sum(losses.values()).backward()  # connected and finite
    assert all(parameter.grad.isfinite().all() for parameter in detector.parameters())
