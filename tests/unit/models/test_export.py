"""The ONNX model beside the detector it was made of."""

import pytest
import torch

from mmdet.commands.export import FLOAT, compare
from mmdet.models.export import to_onnx
from mmdet.models.postprocess import Detections
from tests.helpers.students import FAMILIES, build, model_config

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnx')


@pytest.mark.parametrize('name', sorted(FAMILIES.keys() - {'faster_rcnn'}))
def test_every_family_of_one_stage_finds_what_its_detector_finds(name, tmp_path):
    """Several images at once, more than `max_per_img` boxes in some, nothing in the last."""
    config = model_config(name, tmp_path / 'none.pth')
    del config['distiller']
    detector = build(config).eval()
    width, height = FAMILIES[name].scale
    images = 3 * torch.randn(4, 3, height, width, generator=torch.Generator().manual_seed(0))
    images[3] = 0
    postprocess = detector.head.postprocess
    postprocess.nms_pre, postprocess.max_per_img = 40, 15
    with torch.no_grad():
        outputs = detector.raw_outputs(images)
        postprocess.score_thr = float(detector.head.scores(outputs)[3].max()) + 1e-5
        expected = detector.head.predict(outputs, torch.tensor([[height, width]]))
    model = to_onnx(detector, (width, height), dynamic_batch=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    results = [torch.from_numpy(x) for x in session.run(None, {'images': images.numpy()})]
    assert [x.shape for x in results] == [(4, 15, 4), (4, 15), (4, 15)]
    counts = [len(own.scores) for own in expected]
    assert max(counts) == 15
    assert counts[3] == 0
    for own, count, *found in zip(expected, counts, *results, strict=True):
        bboxes, scores, labels = found
        assert (scores.diff() <= 0).all()
        assert not scores[count:].any()
        assert not bboxes[count:].any()
        assert (labels[count:] == -1).all()
        total, alone, *_ = compare(own, Detections(*(x[:count] for x in found)), FLOAT, cutoff=0)
        assert (total, alone) == (count, 0)


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({}, {100}),
        ({'roi_head.postprocess.score_thr': 0.5}, range(1, 100)),
        ({'roi_head.postprocess.nms_pre': 20}, range(1, 100)),
        ({'rpn_head.postprocess.score_thr': 1.0}, {0}),
    ],
    ids=['more than are kept', 'fewer', 'few RoIs', 'no RoI'],
)
def test_two_stages_find_what_their_detector_finds(options, expected, tmp_path):
    config = model_config(
        'faster_rcnn', tmp_path / 'none.pth', **{f'model.{key}': value for key, value in options.items()}
    )
    del config['distiller']
    detector = build(config).eval()
    width, height = FAMILIES['faster_rcnn'].scale
    session = onnxruntime.InferenceSession(to_onnx(detector, (width, height)).SerializeToString())
    assert [output.shape for output in session.get_outputs()] == [[1, 100, 4], [1, 100], [1, 100]]
    for seed in range(2):
        images = 3 * torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            (own,) = detector.head.predict(detector.raw_outputs(images), torch.tensor([[height, width]]))
        found = [torch.from_numpy(x) for x in session.run(None, {'images': images.numpy()})]
        assert [x.shape for x in found] == [(1, 100, 4), (1, 100), (1, 100)]
        count = len(own.scores)
        assert count in expected
        assert not found[0][0, count:].any()
        assert not found[1][0, count:].any()
        assert (found[2][0, count:] == -1).all()
        total, alone, *_ = compare(own, Detections(*(x[0, :count] for x in found)), FLOAT, cutoff=0)
        assert (total, alone) == (count, 0)
