"""What is done with detections: COCO's records, pictures, the libraries that docs/training.md names."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdet.apis import inference_detector, init_detector
from mmdet.apis.results import read_picture
from tests.helpers.tiny_run import PLAIN, ROOT, save_detector

META = {'classes': ['ant', 'bee', 'cat'], 'category_ids': [4, 9, 2]}


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo and a detector."""
    folder = tmp_path_factory.mktemp('results')
    save_detector(folder / 'x.pth', **META)
    noise = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / 'PHOTO.jpg'), noise)
    return folder


@pytest.fixture(scope='module')
def model(folder: Path):
    return init_detector(PLAIN, folder / 'x.pth', 'cpu')


def test_records_have_the_categories_of_the_data_set(model, folder):
    everything = inference_detector(model, folder / 'PHOTO.jpg')
    threshold = float(everything.pred_instances.scores.median())
    found = inference_detector(model, folder / 'PHOTO.jpg', score_thr=threshold)
    boxes = found.pred_instances
    assert 0 < len(boxes) < len(everything.pred_instances)
    assert boxes.scores.min() >= threshold
    records = found.to_coco(image_id=139)
    assert len(records) == len(boxes)
    for record, label, score, (x1, y1, x2, y2) in zip(
        records, boxes.labels.tolist(), boxes.scores.tolist(), boxes.bboxes.tolist(), strict=True
    ):
        expected = {'image_id': 139, 'category_id': META['category_ids'][label], 'score': score}
        assert record == expected | {'bbox': [x1, y1, x2 - x1, y2 - y1]}
    assert {record['image_id'] for record in found.to_coco()} == {0}
    assert inference_detector(model, folder / 'PHOTO.jpg', score_thr=1.1).to_coco() == []


def test_drawing(model, folder, tmp_path):
    photo = cv2.imread(str(folder / 'PHOTO.jpg'))
    of_file, of_array = inference_detector(model, [folder / 'PHOTO.jpg', photo])
    drawn = of_file.draw(tmp_path / 'new' / 'found.png', score_thr=0.0)
    assert drawn.shape == photo.shape
    assert (drawn != photo).any()
    assert (cv2.imread(str(tmp_path / 'new' / 'found.png')) == drawn).all()
    assert (of_array.draw(image=photo, score_thr=1.1) == photo).all()
    with pytest.raises(ValueError, match=r'draw\(image='):
        of_array.draw()
    with pytest.raises(ValueError, match='of an image of'):
        of_array.draw(image=photo[:50])


@pytest.mark.parametrize('mode', ['RGB', 'L', 'P', 'RGBA', '1', 'CMYK'])
def test_pillow_pictures_of_every_mode(mode):
    red = Image.new('RGB', (6, 4), (255, 0, 0)).convert(mode)
    pixels = read_picture(red)
    assert pixels.shape == (4, 6, 3)
    if mode in ('RGB', 'RGBA', 'P', 'CMYK'):
        assert pixels[0, 0].tolist() == pytest.approx([0, 0, 255], abs=2)


def test_pillow_pictures_are_turned_as_their_exif_data_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    half = np.zeros((40, 64, 3), np.uint8)
    half[:20] = 255
    Image.fromarray(half).save(tmp_path / 'turned.png', exif=exif)
    opened, read = read_picture(Image.open(tmp_path / 'turned.png')), read_picture(tmp_path / 'turned.png')
    assert opened.shape == (64, 40, 3)
    assert (opened == read).all()


def test_snippets_of_the_docs(model, folder, monkeypatch):
    """As written; a library that is not installed is stood in for by its constructors."""
    text = (ROOT / 'docs' / 'training.md').read_text().split('## Inference on')[1].split('## Dist')[0]
    snippets = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    for name in ('supervision', 'fiftyone'):
        try:
            __import__(name)
        except ImportError:
            recorded = SimpleNamespace(
                Detections=SimpleNamespace, Detection=SimpleNamespace, Sample=dict, Dataset=Samples
            )
            recorded.launch_app = list
            monkeypatch.setitem(sys.modules, name, recorded)
    monkeypatch.chdir(folder)
    names: dict = {}
    monkeypatch.setattr('mmdet.apis.init_detector', lambda *_args, **_kwargs: model)
    for snippet in snippets:
        exec(snippet, names)
    boxes, detections = names['found'].pred_instances, names['detections']
    assert (detections.xyxy == boxes.bboxes.numpy()).all()
    assert (detections.class_id == boxes.labels.numpy()).all()
    assert (detections.confidence == boxes.scores.numpy()).all()
    assert set(detections.data['class_name']) <= set(META['classes'])
    (sample,) = names['dataset']
    objects = sample['predictions'].detections
    assert len(objects) == len(boxes) > 0
    for one, box in zip(objects, boxes.bboxes.tolist(), strict=True):
        x, y, w, h = one.bounding_box
        assert [x * 160, y * 90, (x + w) * 160, (y + h) * 90] == pytest.approx(box, abs=1e-3)
        assert one.label in META['classes']


class Samples(list):
    """Stands in for FiftyOne's data set."""

    add_sample = list.append
