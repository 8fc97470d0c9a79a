import contextlib
import io
import json
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet.distributed.launch import leave_process_group
from mmdet.evaluation import CocoMetric
from mmdet.evaluation.coco_metric import AP_NAMES
from mmdet.registry import METRICS
from mmdet.structures import DetDataSample
from tests.helpers.forked import start_server

CLASSES = ('emu', 'ant', 'cat')  # labels in another order than the category ids
IDS = {'ant': 3, 'cat': 7, 'emu': 20}
ABSENT = 900  # the last image: no objects


def make_set(file: Path, seed: int = 0) -> dict:
    """Annotations of 12 images with crowds, several sizes, and an image without objects."""
    rng = np.random.default_rng(seed)
    annotations = []
    images = [
        {'id': int(i), 'file_name': f'{i}.jpg', 'width': 400, 'height': 300} for i in (*range(50, 61), ABSENT)
    ]
    for image in images[:-1]:
        for _ in range(int(rng.integers(1, 9))):
            x, y = rng.uniform(0, 250, 2)
            width, height = rng.choice([12, 60, 140], 2) * rng.uniform(0.7, 1.2, 2)
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image['id'],
                    'category_id': int(rng.choice([3, 7, 20])),
                    'bbox': [float(x), float(y), float(width), float(height)],
                    'area': float(width * height * rng.uniform(0.5, 1)),
                    'iscrowd': int(rng.random() < 0.2),
                }
            )
    categories = [{'id': number, 'name': name} for name, number in IDS.items()]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    file.write_text(json.dumps(content))
    return content


def make_detections(content: dict, seed: int = 1) -> list[DetDataSample]:
    """Moved objects, wrong labels, false positives, and many equal scores; two images without any."""
    rng = np.random.default_rng(seed)
    samples = []
    for image in content['images']:
        objects = [one for one in content['annotations'] if one['image_id'] == image['id']]
        rows = []
        for one in objects * 2:
            x, y, width, height = np.array(one['bbox']) + rng.normal(0, 0.08, 4) * one['bbox'][2]
            label = CLASSES.index(next(name for name, number in IDS.items() if number == one['category_id']))
            label = label if rng.random() < 0.8 else int(rng.integers(3))
            rows.append((x, y, x + abs(width), y + abs(height), rng.integers(1, 10) / 10, label))
        rows = [] if image['id'] in (52, 55) else rows
        samples.append(sample(image['id'], rows))
    return samples


def sample(img_id: int, rows: list[tuple]) -> DetDataSample:
    found = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return DetDataSample(
        metainfo={'img_id': img_id, 'ori_shape': (300, 400)},
        pred_instances=InstanceData(bboxes=found[:, :4], scores=found[:, 4], labels=found[:, 5].long()),
    )


def plain_pycocotools(ann_file: Path, results: list[dict]) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(ann_file))
        evaluation = COCOeval(truth, truth.loadRes([dict(one) for one in results]), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def numbers(metric: CocoMetric, samples: list[DetDataSample]) -> dict[str, float]:
    for start in range(0, len(samples), 5):
        metric.process(None, samples[start : start + 5])
    return metric.evaluate(len(samples))


@pytest.fixture
def ann_file(tmp_path):
    return tmp_path / 'ann.json'


@pytest.mark.parametrize('hotcoco', [True, False])
@pytest.mark.parametrize('seed', range(3))
def test_numbers_are_those_of_pycocotools(ann_file, tmp_path, monkeypatch, seed, hotcoco):
    if not hotcoco:
        monkeypatch.setitem(sys.modules, 'hotcoco', None)
    content = make_set(ann_file, seed)
    samples = make_detections(content, seed + 1)
    out = tmp_path / 'results.json'
    metric = METRICS.build(
        {'type': 'CocoMetric', 'ann_file': str(ann_file), 'classes': CLASSES, 'outfile_prefix': str(out)}
    )
    found = numbers(metric, samples)
    results = json.loads(out.read_text())
    assert len(results) == sum(len(one.pred_instances) for one in samples)
    expected = plain_pycocotools(ann_file, results)
    assert found == {f'coco/{name}': value for name, value in zip(AP_NAMES, expected[:6], strict=True)}
    assert 0.1 < found['coco/bbox_mAP'] < 0.9
    assert numbers(metric, samples) == found  # nothing is left from the evaluation before


def test_results_are_xywh_with_the_category_of_the_name(ann_file, tmp_path):
    make_set(ann_file)
    metric = CocoMetric(str(ann_file), CLASSES, format_only=True, outfile_prefix=str(tmp_path / 'sub/val'))
    assert numbers(metric, [sample(51, [(10, 20, 15, 40, 0.5, 2)])]) == {}
    (one,) = json.loads((tmp_path / 'sub/val.bbox.json').read_text())
    assert one == {'image_id': 51, 'bbox': [10.0, 20.0, 5.0, 20.0], 'score': 0.5, 'category_id': 7}


def test_pickled_results_are_arrays(ann_file, tmp_path):
    make_set(ann_file)
    metric = CocoMetric(str(ann_file), CLASSES, outfile_prefix=str(tmp_path / 'out.pkl'))
    numbers(metric, [sample(51, [(10, 20, 15, 40, 0.5, 2)]), sample(50, [])])
    empty, one = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    assert (empty['img_id'], empty['bboxes'].shape, one['img_id']) == (50, (0, 4), 51)
    np.testing.assert_array_equal(one['bboxes'], np.array([[10, 20, 15, 40]], np.float32))
    np.testing.assert_array_equal(one['scores'], np.array([0.5], np.float32))
    np.testing.assert_array_equal(one['labels'], [2])


def test_images_that_never_arrive_count(ann_file):
    content = make_set(ann_file)
    samples = make_detections(content)
    whole = numbers(CocoMetric(str(ann_file), CLASSES), samples)
    empty = [sample(one.img_id, []) if one.img_id < 54 else one for one in samples]
    missing = [one for one in samples if one.img_id >= 54]
    less = numbers(CocoMetric(str(ann_file), CLASSES), empty)
    assert numbers(CocoMetric(str(ann_file), CLASSES), missing) == less
    assert less['coco/bbox_mAP'] < whole['coco/bbox_mAP']


def test_blank_images_and_repeated_images_are_ignored(ann_file):
    samples = make_detections(make_set(ann_file))
    once = numbers(CocoMetric(str(ann_file), CLASSES), samples)
    blank = sample(-1, [(0, 0, 100, 100, 0.99, 0)])
    assert numbers(CocoMetric(str(ann_file), CLASSES), [*samples, blank, *samples[:3]]) == once


def test_no_detection_at_all_gives_zeros(ann_file):
    content = make_set(ann_file)
    samples = [sample(image['id'], []) for image in content['images']]
    found = numbers(CocoMetric(str(ann_file), CLASSES, classwise=True), samples)
    assert set(found.values()) == {0.0}
    assert len(found) == 6 + 3


def test_classwise_numbers_go_by_name(ann_file):
    content = make_set(ann_file)
    for one in content['annotations']:
        one['category_id'] = 7 if one['category_id'] == 20 else one['category_id']  # no emu
    ann_file.write_text(json.dumps(content))
    rows = [
        (one['image_id'], (x, y, x + w, y + h, 0.9, CLASSES.index('ant')))
        for one in content['annotations']
        for x, y, w, h in [one['bbox']]
        if one['category_id'] == 3 and not one['iscrowd']
    ]
    samples = [sample(i, [row for image, row in rows if image == i]) for i in dict(rows)]
    found = numbers(CocoMetric(str(ann_file), CLASSES, classwise=True), samples)
    assert found['coco/ant_precision'] == pytest.approx(1, abs=1e-9)
    assert found['coco/cat_precision'] == 0
    assert found['coco/emu_precision'] == -1
    assert found['coco/bbox_mAP'] == pytest.approx(0.5, abs=1e-9)


def test_the_log_shows_precision_and_recall(ann_file, log_lines):
    samples = make_detections(make_set(ann_file))
    numbers(CocoMetric(str(ann_file), CLASSES, classwise=True), samples)
    for word in ('AP50', 'AR@100', 'emu'):
        assert word in ''.join(log_lines)


def test_a_set_without_annotations_is_written_and_not_scored(ann_file, tmp_path, log_lines):
    content = make_set(ann_file)
    samples = make_detections(content)
    del content['annotations']
    ann_file.write_text(json.dumps(content))
    out = tmp_path / 'test.json'
    assert numbers(CocoMetric(str(ann_file), CLASSES, classwise=True, outfile_prefix=str(out)), samples) == {}
    assert len(json.loads(out.read_text())) == sum(len(one.pred_instances) for one in samples)
    assert 'nothing to score' in log_lines[-1]


@pytest.mark.parametrize(
    ('values', 'reason'),
    [
        ({'iscrowd': 1}, 'no image has a box .* crowd'),
        ({'category_id': 5}, 'no image has a box .* other_class'),
        ({'bbox': [0.1, 0.1, 0.5, 0.5]}, 'no image has a box .* too_small.*fractions'),
        (None, 'the list of annotations is empty'),
        ({}, r'not one of the images of .*ann\.json could be used'),
    ],
)
def test_nothing_to_score_is_said_and_gives_no_number(ann_file, log_lines, values, reason):
    content = make_set(ann_file)
    samples = make_detections(content) if values != {} else [sample(-1, [(0, 0, 9, 9, 0.9, 0)])]
    content['categories'].append({'id': 5, 'name': 'dog'})
    content['annotations'] = [one | values for one in content['annotations']] if values is not None else []
    ann_file.write_text(json.dumps(content))
    assert numbers(CocoMetric(str(ann_file), CLASSES, classwise=True), samples) == {}
    assert re.search(f'nothing to score: .*{reason}', log_lines[-1])


def test_areas_of_zero_and_less_are_told(ann_file, monkeypatch):
    """pycocotools would pass over an object with area -1; of 0 it takes it for small."""
    content, lines = make_set(ann_file), []
    monkeypatch.setattr('mmdet.evaluation.coco_eval.print_log', lambda *words: lines.append(words[0]))
    areas = [one.pop('area') for one in content['annotations']]
    ann_file.write_text(json.dumps(content))
    samples = make_detections(content)
    without = numbers(CocoMetric(str(ann_file), CLASSES), samples)
    assert not lines and len(areas) > 2
    for one in content['annotations']:
        one['area'] = -1
    ann_file.write_text(json.dumps(content))
    assert numbers(CocoMetric(str(ann_file), CLASSES), samples) == without
    assert f'{len(areas)} annotations have an area of 0 or less, the first is 1:' in lines[0]


def test_bad_arguments(ann_file):
    make_set(ann_file)
    with pytest.raises(ValueError, match='segm'):
        CocoMetric(str(ann_file), metric='segm')
    with pytest.raises(ValueError, match='outfile_prefix'):
        CocoMetric(str(ann_file), format_only=True)
    with pytest.raises(ValueError, match='no category named gnu') as error:
        CocoMetric(str(ann_file), ['ant', 'gnu'])
    assert 'ant, cat, emu' in str(error.value)
    with pytest.raises(ValueError, match='no image with id 1 '):
        numbers(CocoMetric(str(ann_file)), [sample(1, [])])


def score_in_process(rank: int, folder: Path) -> None:
    """One of two processes: every second image and one that the other has too; then all or none."""
    torch.distributed.init_process_group('gloo', f'file://{folder / "meet"}', rank=rank, world_size=2)
    samples = make_detections(json.loads((folder / 'ann.json').read_text()))
    metric = CocoMetric(str(folder / 'ann.json'), CLASSES, classwise=True)
    shares = samples[rank::2] + samples[:1], [samples, []][rank]
    (folder / f'{rank}.json').write_text(json.dumps([numbers(metric, share) for share in shares]))
    leave_process_group()


def test_two_processes_equal_one(ann_file, tmp_path):
    samples = make_detections(make_set(ann_file))
    alone = numbers(CocoMetric(str(ann_file), CLASSES, classwise=True), samples)
    start_server()
    torch.multiprocessing.start_processes(score_in_process, (tmp_path,), nprocs=2, start_method='forkserver')
    for rank in range(2):
        assert json.loads((tmp_path / f'{rank}.json').read_text()) == [alone, alone]
