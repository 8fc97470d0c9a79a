"""Write a detector as an ONNX model: network, decoding and NMS in one graph.

N images · H x W pixels of the network input · A anchors · B of them that go on to NMS · K classes
D detections of an image, `max_per_img`
"""

import copy
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.detectors.two_stage import as_anchors

# What follows a network of one stage. What NMS drops scores 0; the best D of an image are its detections.
NMS = """
<ir_version: {ir_version}, opset_import: ["": {opset}]>
nms (float[{batch}, B, 4] all_bboxes, float[{batch}, B, K] all_scores) =>
    (float[{batch}, {most}, 4] bboxes, float[{batch}, {most}] scores, int64[{batch}, {most}] labels)
<int64 most = {{{most}}}, float iou_threshold = {{{iou_threshold}}}, float score_thr = {{{score_thr}}},
 int64[1] count = {{{most}}}, int64[4] padding = {{0, 0, 0, {most}}}, int64[1] last = {{-1}},
 int64 nothing = {{-1}}, float zero = {{0}}>
{{
    by_class = Transpose<perm = [0, 2, 1]>(all_scores)
    kept = NonMaxSuppression(all_bboxes, by_class, most, iou_threshold, score_thr)
    kept_scores = GatherND(by_class, kept)
    by_class_shape = Shape(by_class)
    zeros = ConstantOfShape(by_class_shape)
    after_nms = ScatterND(zeros, kept, kept_scores)
    flat = Flatten(after_nms)
    padded = Pad(flat, padding)
    scores, index = TopK(padded, count)
    number = Shape<start = 2>(by_class)
    label = Div(index, number)
    row = Mod(index, number)
    rows = Unsqueeze(row, last)
    best = GatherND<batch_dims = 1>(all_bboxes, rows)
    found = Greater(scores, zero)
    labels = Where(found, label, nothing)
    found_boxes = Unsqueeze(found, last)
    bboxes = Where(found_boxes, best, zero)
}}
"""


class _OneStage(nn.Module):
    """Images -> decoded boxes and scores, of all anchors or of those that go on to NMS."""

    img_shape: Tensor

    def __init__(self, detector: SingleStageDetector, img_shape: tuple[int, int], with_nms: bool) -> None:
        super().__init__()
        self.detector = detector
        self.with_nms = with_nms
        self.register_buffer('img_shape', torch.tensor([img_shape]))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W), normalized -> bboxes (N, A or B, 4) in H x W, scores (N, A or B, K)."""
        head = self.detector.head
        outputs = self.detector.raw_outputs(images.to(next(self.detector.parameters()).dtype))
        bboxes, scores = head.decode(outputs, self.img_shape), head.scores(outputs)
        if not self.with_nms:
            return bboxes, scores
        return head.postprocess.candidates(bboxes, scores, outputs.anchors.num_per_level)[:2]


class _TwoStages(nn.Module):
    """An image -> its detections; both stages run NMS by themselves."""

    img_shape: Tensor

    def __init__(self, detector: TwoStageDetector, img_shape: tuple[int, int]) -> None:
        super().__init__()
        self.detector = detector
        self.register_buffer('img_shape', torch.tensor([img_shape]))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Image (1, 3, H, W), normalized -> bboxes (1, D, 4) in H x W, scores (1, D), labels (1, D)."""
        feats = self.detector.extract_feat(images)
        first, second = self.detector.rpn_head, self.detector.roi_head
        (proposed,) = first.predict(first(feats), self.img_shape)
        rois = _pad(proposed.bboxes, first.postprocess.max_per_img)
        (found,) = second.predict(second(feats, as_anchors(rois)), self.img_shape)
        most = second.postprocess.max_per_img
        return tuple(_pad(x, most, value) for x, value in zip(found, (0, 0, -1), strict=True))


def _pad(x: Tensor, rows: int, value: int = 0) -> Tensor:
    """Of an image at most `rows` rows -> a batch (1, rows, ...)."""
    return torch.cat([x, x.new_full((rows, *x.shape[1:]), value)])[None, :rows]


def to_onnx(
    detector: SingleStageDetector | TwoStageDetector,
    size: tuple[int, int],
    with_nms: bool = True,
    dynamic_batch: bool = False,
    half: bool = False,
    opset: int = 17,
) -> Any:
    """Translate a detector on the CPU to an `onnx.ModelProto`.

    Its input is `images`, float32 (N, 3, H, W), normalized. Its outputs are `bboxes` (N, D, 4), xyxy in
    pixels of the input, `scores` (N, D), best first, and `labels` (N, D), int64; behind the last detection of
    an image they are 0, 0 and -1. Without NMS: `bboxes` (N, A, 4) and `scores` (N, A, K) of all anchors.

    Args:
        detector: In eval mode; stays as it is.
        size: (W, H).
        with_nms: Whether NMS is in the model. This and the next two: of one stage.
        dynamic_batch: Whether N is left open; else it is 1.
        half: Whether weights and features are float16. Boxes and scores are float32.
        opset: Of ONNX, from 15; of two stages from 16, which has their RoIAlign.
    """
    import onnx

    detector = copy.deepcopy(detector)  # tracing leaves its symbols in the cache of the anchors
    postprocess, shape = detector.head.postprocess, (size[1], size[0])
    if isinstance(detector, TwoStageDetector):
        model = _trace(_TwoStages(detector, shape), shape, ['bboxes', 'scores', 'labels'], False, opset)
        for output in model.graph.output:  # it is always D
            output.type.tensor_type.shape.dim[1].dim_value = postprocess.max_per_img
        return model
    network = _OneStage(detector.half() if half else detector, shape, with_nms)
    names = ['all_bboxes', 'all_scores'] if with_nms else ['bboxes', 'scores']
    model = _trace(network, shape, names, dynamic_batch, opset)
    if not with_nms:
        return model
    values = {
        'most': postprocess.max_per_img,
        'iou_threshold': postprocess.iou_threshold,
        'score_thr': postprocess.score_thr,
        'batch': 'N' if dynamic_batch else 1,
    }
    nms = onnx.parser.parse_model(NMS.format(ir_version=model.ir_version, opset=opset, **values))
    return onnx.compose.merge_models(model, nms, [(name, name) for name in names])


def _trace(
    network: nn.Module, shape: tuple[int, int], names: list[str], dynamic_batch: bool, opset: int
) -> Any:
    """Translate a network of images of one shape (H, W); `names` are those of its outputs."""
    import onnx

    with TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')  # sizes and anchors are constants here
        file = Path(folder, 'network.onnx')
        # dynamo=True takes ten times as long, needs onnxscript, and asks for a newer torch
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 3, *shape),),
            file,
            input_names=['images'],
            output_names=names,
            opset_version=opset,
            dynamic_axes={name: {0: 'N'} for name in ['images', *names]} if dynamic_batch else None,
            dynamo=False,
        )
        return onnx.load(file)
