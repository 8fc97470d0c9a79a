"""The command that writes an ONNX file, and the page that says how to use it."""

import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from mmdet.apis import inference_detector, init_detector
from mmdet.commands import export
from mmdet.config.resolve import merge_config
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.export import NMS
from tests.helpers.tiny_run import CLASSES, NARROW, PLAIN, ROOT, as_arguments

onnxruntime = pytest.importorskip('onnxruntime')
onnx = pytest.importorskip('onnx')

HIGH = {'model.bbox_head.postprocess.score_thr': 0.3}  # few boxes of random weights


@pytest.fixture
def checkpoint(tmp_path):
    """Random weights of a small SSD, some 30 boxes a photo."""
    cfg = merge_config(PLAIN, {**NARROW, 'model.bbox_head.num_classes': len(CLASSES)})
    torch.manual_seed(0)
    weights = init_detector(cfg, device='cpu').state_dict()
    weights['bbox_head.cls_convs.0.0.weight'] *= 3
    torch.save({'meta': {'dataset_meta': {'classes': CLASSES}}, 'state_dict': weights}, tmp_path / 'x.pth')
    return tmp_path / 'x.pth'


@pytest.fixture
def photos(tmp_path):
    """Two photos, and a file that is none."""
    folder = tmp_path / 'photos'
    folder.mkdir()
    for seed in range(2):
        noise = np.random.default_rng(seed).integers(0, 256, (9, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{seed}.png'), cv2.resize(noise, (160, 90)))
    (folder / 'notes.txt').write_text('no photo')
    return folder


def run(checkpoint, *words, options=HIGH):
    export.main([str(PLAIN), str(checkpoint), *map(str, words), *as_arguments({**NARROW, **options})])


def test_the_script_of_the_page_finds_what_the_detector_finds(checkpoint, photos, capsys):
    run(checkpoint, '--photos', photos)
    said = capsys.readouterr().out
    assert re.search(r'x\.onnx: .* 2 photos of .*: [1-9]\d* detections, 0 without a counterpart', said)
    script = re.search(r'```python\n(.*?)```', (ROOT / 'docs/deployment.md').read_text('utf-8'), re.DOTALL)
    file, photo = checkpoint.with_suffix('.onnx'), photos / '0.png'
    code = f'{script[1]}\nassert "torch" not in sys.modules\n'
    done = subprocess.run(
        [sys.executable, '-c', code, file, photo], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [re.fullmatch(r'(\w+) (\S+) (\[.*\])', line).groups() for line in done.stdout.splitlines()]
    model = init_detector(PLAIN, checkpoint, 'cpu', {**NARROW, **HIGH})
    found = inference_detector(model, photo).pred_instances
    assert len(found) > 3
    assert [name for name, _, _ in lines] == [CLASSES[label] for label in found.labels.tolist()]
    np.testing.assert_allclose([float(score) for _, score, _ in lines], found.scores, atol=6e-4)
    np.testing.assert_allclose([json.loads(box) for *_, box in lines], found.bboxes, atol=0.1)


@pytest.mark.parametrize('words', [['--no-nms'], ['--half', '--opset', '18']])
def test_without_photos_generated_ones_are_compared(checkpoint, tmp_path, capsys, words):
    out = tmp_path / 'x.onnx' if '--no-nms' in words else tmp_path / 'new' / 'y.onnx'
    named = tmp_path if '--no-nms' in words else out  # a folder, or a file
    run(checkpoint, *words, '--out', named, '--data-root', tmp_path)
    assert '8 generated pictures' in capsys.readouterr().out
    model = onnx.load(out)
    about = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert about['size'] == [96, 96]
    assert about['classes'] == list(CLASSES)
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    if '--no-nms' in words:
        assert shapes == [[1, 3, 96, 96], [1, 862, 4], [1, 862, 3]]
    else:
        assert shapes == [[1, 3, 96, 96], [1, 200, 4], [1, 200], [1, 200]]
        assert model.graph.initializer[0].data_type == onnx.TensorProto.FLOAT16
        assert model.opset_import[0].version == 18


def test_a_file_that_finds_something_else_is_not_written(checkpoint, photos, monkeypatch):
    monkeypatch.setattr('mmdet.models.export.NMS', NMS.replace('{{{iou_threshold}}}', '{{0.9}}'))
    with pytest.raises(ValueError, match=r'does not find .* detections, [1-9]\d* without .* No file written'):
        run(checkpoint, '--photos', photos)
    assert not checkpoint.with_suffix('.onnx').exists()


def test_a_comparison_of_nothing_says_so(checkpoint, photos, capsys):
    run(checkpoint, '--photos', photos, options={'model.bbox_head.postprocess.score_thr': 1})
    assert 'nothing was found in them, so nothing was compared' in capsys.readouterr().out


def test_what_cannot_be_exported_is_answered(checkpoint, tmp_path, monkeypatch):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='empty holds no image'):
        run(checkpoint, '--photos', tmp_path / 'empty')
    with monkeypatch.context() as patch:
        patch.setattr('mmdet.apis.init_detector', lambda *_: object.__new__(TwoStageDetector))
        with pytest.raises(ValueError, match='has two stages: leave out --no-nms'):
            run(checkpoint, '--half')
    monkeypatch.setattr(export, 'find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match='pip install onnx onnxruntime'):
        run(checkpoint)


def test_a_photo_keeps_its_shape_where_the_config_says_so():
    about = {'size': [64, 32], 'keep_ratio': True, 'color': 'RGB', 'mean': [1, 2, 3], 'std': [2, 2, 2]}
    photo = np.full((40, 40, 3), (30, 20, 10), np.uint8)  # B, G, R
    images = export.preprocess(photo, about)
    assert images.shape == (1, 3, 32, 64)
    np.testing.assert_array_equal(images[0, :, :, :32].max((1, 2)), [4.5, 9, 13.5])
    np.testing.assert_array_equal(images[0, :, :, :32].min((1, 2)), [4.5, 9, 13.5])
    assert not images[..., 32:].any()
