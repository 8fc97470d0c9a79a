import itertools
import json
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmdet.cli import run_main
from mmdet.commands.test import configure, main, parse_args
from mmdet.config.resolve import merge_config
from mmdet.registry import MODELS
from tests.helpers.forked import Fate, finish, launched, start, start_server
from tests.helpers.golden_model import seeded_checkpoint
from tests.helpers.tiny_run import SPLITS, as_arguments

ROOT = Path(__file__).parents[3]
CLASSES = ['brick', 'leaf', 'pond']
CONFIG = """
_base_ = {runtime!r}
custom_imports = dict(imports=['tests.helpers.toy_detector'])
data_root = {root!r}
train_ann, train_img = 'annotations/train.json', 'train/'
val_ann, val_img = 'annotations/val.json', 'val/'
model = dict(type='ToyDetector', num_classes=80, data_preprocessor=dict(type='ToyPreprocessor'))
val_dataloader = dict(
    batch_size=2, sampler=dict(type='DetSampler', shuffle=False), collate_fn=dict(type='collate_detection'),
    dataset=dict(type='CocoDataset', test_mode=True, pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
        dict(type='Resize', scale=(64, 48), keep_ratio=False), dict(type='PackDetInputs')]))
test_dataloader = val_dataloader
train_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric')
test_evaluator = val_evaluator
test_cfg = dict(type='TestLoop')
"""


@pytest.fixture
def folder(tmp_path, tiny_coco, monkeypatch):
    """`set/`, `toy.py`, `toy.pth`; the checkpoint finds bricks and leaves, and moves ponds away."""
    torch.set_num_threads(1)
    root = tmp_path / 'set'
    tiny_coco(images=2, root=root, split='train', size=(60, 80))
    tiny_coco(images=5, root=root, split='val', size=(60, 80), empty=1, crowds=1)
    runtime = str(ROOT / 'configs/_base_/default_runtime.py')
    (tmp_path / 'toy.py').write_text(CONFIG.format(runtime=runtime, root=str(root)))
    save(tmp_path / 'toy.pth', CLASSES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


RUNS = itertools.count()


def run(*arguments: str) -> dict[str, float]:
    """`main`, each time with a log of its own: MMEngine names logs by the second."""
    return main([*arguments, '--cfg-options', f'experiment_name=test_of_test_{next(RUNS)}'])


def save(file: Path, classes: list[str], **meta: object) -> None:
    state = {'move': torch.tensor([0.0, 0.0, 1000.0])}
    torch.save({'meta': {'dataset_meta': {'classes': classes}, **meta}, 'state_dict': state}, file)


def log_of(work_dir: Path) -> str:
    return ''.join(file.read_text() for file in work_dir.rglob('*.log'))


def test_without_options_boxes_are_scored(folder):
    numbers = run('toy.py', 'toy.pth')
    assert numbers['coco/bbox_mAP'] == pytest.approx(2 / 3, abs=1e-6)
    assert len(numbers) == 6
    log = log_of(folder / 'work_dirs/toy')
    for word in ('AP50', 'AR@100', 'coco/bbox_mAP_75: 0.66'):
        assert word in log


def test_the_record_of_the_training_stays(folder):
    record = folder / 'work_dirs/toy/toy.py'
    record.parent.mkdir(parents=True)
    record.write_text('recorded = True')
    run('toy.py', 'toy.pth')
    assert record.read_text() == 'recorded = True'
    own = next(file for file in record.parent.glob('*.py') if file != record)
    assert Config.fromfile(own).load_from == 'toy.pth'


@pytest.mark.parametrize('trained', [[64, 48], [32, 24], None])
def test_another_input_size_than_in_training_is_told(folder, trained):
    save(folder / 'toy.pth', CLASSES, input_size=trained)
    run('toy.py', 'toy.pth')
    assert ('input_size=32,24' in log_of(folder / 'work_dirs/toy')) == (trained == [32, 24])


def test_class_by_class_and_in_old_spelling(folder, capsys):
    numbers = run('toy.py', 'toy.pth', '--eval', 'bbox', '--classwise', '--work-dir', 'new')
    assert numbers['coco/leaf_precision'] == pytest.approx(1)
    assert numbers['coco/pond_precision'] == 0
    old_options = ['--local_rank', '0', '--options', 'test_dataloader.batch_size=3']
    assert run('toy.py', 'toy.pth', '--classwise', *old_options) == numbers
    assert '--options is now --cfg-options' in capsys.readouterr().err


def test_out_writes_json_or_arrays_and_scores_on_demand(folder):
    assert run('toy.py', 'toy.pth', '--out', 'found.json') == {}
    numbers = run('toy.py', 'toy.pth', '--out', 'found.pkl', '--eval', 'bbox')
    assert numbers['coco/bbox_mAP'] > 0.5
    truth = json.loads(Path('set/annotations/val.json').read_text())
    objects = [one for one in truth['annotations'] if not one['iscrowd'] and one['category_id'] != 5]
    found = [one for one in json.loads(Path('found.json').read_text()) if one['category_id'] != 5]
    assert len(found) == len(objects) > 0
    key = lambda one: (one['image_id'], one['category_id'], *np.round(one['bbox']))  # noqa: E731
    for one, other in zip(sorted(found, key=key), sorted(objects, key=key), strict=True):
        assert (one['image_id'], one['category_id']) == (other['image_id'], other['category_id'])
        np.testing.assert_allclose(one['bbox'], other['bbox'], atol=1e-3)
    arrays = pickle.loads(Path('found.pkl').read_bytes())
    assert [one['img_id'] for one in arrays] == [1, 2, 3, 4, 5]
    assert arrays[4]['bboxes'].shape == (0, 4)


def test_format_only_of_the_config(folder):
    assert main(['toy.py', 'toy.pth', '--cfg-options', 'test_evaluator.format_only=True']) == {}
    assert len(json.loads(Path('work_dirs/toy/detections.json').read_text())) == 12


def test_format_only_writes_into_the_work_dir(folder):
    assert run('toy.py', 'toy.pth', '--format-only', '--work-dir', 'run') == {}
    assert len(json.loads(Path('run/detections.json').read_text())) == 12


def test_a_set_without_annotations_is_written(folder):
    content = json.loads(Path('set/annotations/val.json').read_text())
    del content['annotations']
    Path('set/annotations/info.json').write_text(json.dumps(content))
    options = [
        '--show-dir',
        'pictures',
        '--report',
        'report',
        '--cfg-options',
        'test_ann=annotations/info.json',
    ]
    assert run('toy.py', 'toy.pth', '--eval', 'bbox', '--work-dir', 'run', *options) == {}
    assert json.loads(Path('report/detections.json').read_text()) == []
    assert not Path('report/report.html').exists()
    assert 'nothing to score' in log_of(folder / 'run')
    assert cv2.imread('pictures/1.jpg').shape == (60, 80, 3)


def test_pictures_of_images_that_differ_in_suffix(folder):
    file = Path('set/annotations/val.json')
    content = json.loads(file.read_text())
    first, second = (image['file_name'] for image in content['images'][:2])
    picture = cv2.imread(f'set/val/{second}')
    content['images'][1]['file_name'] = f'{Path(first).stem}.png'
    cv2.imwrite(f'set/val/{Path(first).stem}.png', picture)
    file.write_text(json.dumps(content))
    run('toy.py', 'toy.pth', '--show-dir', 'shown')
    assert len(list(Path('shown').iterdir())) == 5


def test_pictures_show_truth_and_detections(folder):
    numbers = run('toy.py', 'toy.pth', '--show-dir', 'shown')
    run('toy.py', 'toy.pth', '--show-dir', 'hidden', '--show-score-thr', '0.95')
    assert len(numbers) == 6
    shown, hidden = (cv2.imread(f'{name}/1.jpg') for name in ('shown', 'hidden'))
    assert sorted(file.name for file in Path('shown').iterdir()) == [f'{i}.jpg' for i in range(1, 6)]
    assert shown.shape[1] >= 2 * 80
    half = shown.shape[1] // 2
    assert np.abs(shown[-60:, :half].astype(int) - hidden[-60:, :half]).max() < 40  # the same truth
    assert np.abs(shown[-60:, half:].astype(int) - hidden[-60:, half:]).max() > 60


def test_a_report(folder, capsys):
    numbers = run('toy.py', 'toy.pth', '--report', 'report')
    assert numbers['coco/bbox_mAP'] == pytest.approx(2 / 3, abs=1e-6)
    shown = capsys.readouterr().out
    assert 'M parameters; ' in shown and ' ms an image' in shown and 'report: report/report.html' in shown
    found = json.loads(Path('report/report.json').read_text())
    assert {one['name']: one['AP'] for one in found['classes']} == pytest.approx(
        {'brick': 1, 'leaf': 1, 'pond': 0}
    )
    assert found['best_f1']['score_threshold'] == pytest.approx(0.9, abs=2e-3)
    counts = np.array(found['confusion_matrix'])
    assert counts[2, 3] == counts[3, 2] == counts.sum() - np.trace(counts) - counts[2, 3]  # moved ponds
    assert (found['gmacs'], found['processes'], found['images']) == (None, 1, 5)
    assert len(json.loads(Path('report/detections.json').read_text())) == 12


def test_the_teacher_and_the_training_set_are_not_needed(folder):
    Path('set/annotations/train.json').unlink()
    assert run('toy.py', 'toy.pth')['coco/bbox_mAP'] == pytest.approx(2 / 3, abs=1e-6)
    distilled = str(ROOT / 'configs_dev/ssd/ssd_tiny_cls_loc.py')
    cfg = configure(merge_config(distilled), parse_args([distilled, 'toy.pth', '--out', 'found.json']))
    assert 'distiller' not in cfg.model


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--out', 'found.txt'], r'\.json'),
        (['--format-only', '--classwise'], 'leave it out'),
        (['--format-only', '--report', 'report'], 'leave it out'),
        (['--out', 'found.pkl', '--report', 'report'], r'end in \.json'),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse_args(['toy.py', 'toy.pth', *arguments])


def as_typed(folder: Path, arguments: list[str]) -> None:
    """`python tools/test.py ARGUMENTS` in a folder."""
    os.chdir(folder)
    run_main(lambda: main(arguments))


def test_two_processes_equal_one(folder):
    start_server()
    alone = run('toy.py', 'toy.pth', '--out', 'one.json', '--eval', 'bbox')
    arguments = ['toy.py', 'toy.pth', '--launcher', 'pytorch', '--work-dir', 'run', '--out', 'two.json']
    arguments += ['--report', 'report']
    processes = [
        start(
            as_typed, folder, [*arguments, '--eval', 'bbox'], fate=Fate(folder / 'run', environment=variables)
        )
        for variables in launched(2)
    ]
    assert [finish(process) for process in processes] == [0, 0]
    assert json.loads(Path('two.json').read_text()) == json.loads(Path('one.json').read_text())
    assert f'coco/bbox_mAP: {alone["coco/bbox_mAP"]:.4f}' in log_of(folder / 'run')
    assert json.loads(Path('report/report.json').read_text())['processes'] == 2


def test_ssd300_with_a_checkpoint_of_mmdetection_2(folder):
    """The published command, on another set, with a sixteenth of the channels."""
    config = str(ROOT / 'configs/ssd/ssd300.py')
    channels = (32, 64, 32, 16, 16, 16)
    options = {
        'model.backbone.weights': None,
        'model.backbone.width': 1 / 16,
        'model.neck.in_channels': channels[:2],
        'model.neck.out_channels': channels,
        'model.bbox_head.in_channels': channels,
        'model.bbox_head.num_classes': len(CLASSES),
        'test_dataloader.num_workers': 0,
        **SPLITS,
    }
    state = seeded_checkpoint(MODELS.build(merge_config(config, options).model))
    torch.save({'meta': {'CLASSES': tuple(CLASSES)}, 'state_dict': state}, 'ssd300.pth')
    words = ['--data-root', 'set', '--eval', 'bbox', '--out', 'found.json', *as_arguments(options)]
    assert 0 <= run(config, 'ssd300.pth', *words)['coco/bbox_mAP'] <= 1
    assert {one['image_id'] for one in json.loads(Path('found.json').read_text())} == {1, 2, 3, 4, 5}
