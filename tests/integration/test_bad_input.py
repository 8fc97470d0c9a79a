"""Bad input as a user meets it: what stops a tool, what it says, and what is merely counted."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import BaseModel

from mmdet.checkpoint.io import save_checkpoint
from mmdet.cli import run_main
from mmdet.commands import test as test_tool
from mmdet.commands import train as train_tool
from mmdet.engine import TrainLoop
from mmdet.registry import MODELS
from tests.helpers.tiny_run import (
    CLASSES,
    DISTILLED,
    NUMBER,
    PLAIN,
    SPLITS,
    as_arguments,
    be_quick,
    options_of,
    save_teacher,
    small_config,
    train,
    write_sets,
)

TOOLS = {'train': train_tool.main, 'test': test_tool.main}
TRAIN = 'annotations/train.json'
REMEDY = 'train_ann=...'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    be_quick(monkeypatch)


@pytest.fixture
def root(tiny_coco, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_sets(tiny_coco, tmp_path / 'set')


@pytest.fixture(scope='module')
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp('teacher') / 'model_best.pth.tar')


@pytest.fixture
def checkpoint(root: Path, tmp_path: Path) -> Path:
    """What a training of the plain student saves, untrained."""
    cfg = small_config(root, tmp_path / 'none')
    state = MODELS.build(cfg.model).state_dict()
    save_checkpoint(
        {'meta': {'dataset_meta': {'classes': CLASSES}}, 'state_dict': state}, tmp_path / 'ssd.pth'
    )
    return tmp_path / 'ssd.pth'


@pytest.fixture
def stopped(root: Path, capfd, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a tool in this process, as its last lines do, until it stops before the first step.

    Returns what it says on stderr: no traceback.
    """

    def call(tool: str, *words: Any, **options: Any) -> str:
        def step(*arguments: Any, **keywords: Any) -> None:
            raise AssertionError('a step was taken')

        for name in ('val_step', 'test_step'):
            monkeypatch.setattr(BaseModel, name, step)
        monkeypatch.setattr(TrainLoop, 'forward_step', step)
        arguments = [str(word) for word in words]
        if '--data-root' not in arguments:
            arguments += ['--data-root', str(root)]
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            run_main(lambda: TOOLS[tool]([*arguments, *as_arguments(options_of(**options))]))
        said = capfd.readouterr().err
        assert end.value.code == 1
        assert '\nerror: ' in f'\n{said}'  # what torch says of a download may stand before it
        assert 'Traceback' not in said
        return said

    return call


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


# Data sets


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'data_root': 'no'}, ['no/annotations/train.json', '--data-root', 'data_root =', 'ssd_tiny.py']),
        ({'val_ann': 'annotations/no.json'}, ['set/annotations/no.json', 'val_ann=']),
        ({'train_img': 'no/'}, ['set/no', 'no such folder', 'train_img=']),
    ],
    ids=str,
)
def test_missing_root_file_or_folder(stopped, root, options, words):
    said = stopped('train', PLAIN, '--data-root', options.pop('data_root', root), **options)
    assert all(word in said for word in words), said


def rename(content: dict[str, Any]) -> None:
    for one in content['categories']:
        one['name'] = f'my {one["name"]}'


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda content: content.pop('categories'), ["'categories'", 'voc2coco.py', REMEDY]),
        (lambda content: content['annotations'][1].pop('bbox'), ['(id 2)', "'bbox'", REMEDY]),
        (rename, ['brick, leaf, pond', 'my brick, my leaf, my pond', 'val.json', REMEDY]),
    ],
)
def test_broken_annotations(stopped, root, change, words):
    """More of them in tests/unit/datasets."""
    edit(root / TRAIN, change)
    said = stopped('train', PLAIN)
    assert all(word in said for word in ('train.json', *words)), said


def test_testing_reads_the_tested_annotations_alone(stopped, root, checkpoint):
    (root / TRAIN).unlink()
    edit(root / 'annotations/val.json', rename)
    said = stopped('test', PLAIN, checkpoint)
    for word in ('my brick, my leaf, my pond', 'brick, leaf, pond', 'val.json', 'ssd.pth', '--data-root'):
        assert word in said
    (root / 'annotations/val.json').write_text('{"images": [{"id": 1')
    said = stopped('test', PLAIN, checkpoint)
    assert all(word in said for word in ('val.json is not a JSON file', REMEDY)), said


# Configs


@pytest.mark.parametrize(
    ('key', 'value', 'part'),
    [
        ('optim_wrapper.optimizer.lr', -1, 'optim_wrapper'),
        ('optim_wrapper.accumulative_counts', 0, 'optim_wrapper'),
        ('param_scheduler.1.end', 'abc', 'param_scheduler'),
        ('param_scheduler.0.start_factor', 7, 'param_scheduler'),
        ('train_dataloader.batch_size', 0, 'the data loader of .*/annotations/train.json'),
        ('val_dataloader.num_workers', -1, 'the data loader of .*/annotations/val.json'),
        ('default_hooks.logger.interval', 0, 'the hook LoggerHook'),
        ('randomness.seed', 'x', 'randomness'),
        ('log_level', 'LOUD', 'log_level'),
    ],
)
def test_values_that_other_libraries_refuse_are_told_with_their_place(stopped, key, value, part):
    said = stopped('train', PLAIN, **{key: value})
    assert re.search(f'\n  This is said of {part} in the config', said), said


@pytest.mark.parametrize(
    'key', ['optim_wrapper.optimizer.lr', 'train_dataloader.sampler.times', 'model.backbone.width']
)
def test_text_in_the_place_of_a_number_is_told_with_its_key(stopped, key):
    assert f"{key}='abc' has to be a number" in stopped('train', PLAIN, **{key: 'abc'})


def test_a_mistyped_key_stops_training(stopped):
    """More of them in tests/unit/config/test_check.py."""
    said = stopped('train', PLAIN, **{'train_cgf.max_iters': 3})
    assert said.startswith(f'error: {PLAIN}: nothing reads the key train_cgf. Did you mean train_cfg?')


# Checkpoints and teachers


def test_checkpoints_of_something_else(stopped, checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    save_checkpoint(
        {**content, 'meta': {'dataset_meta': {'classes': ['brick', 'leaf']}}}, tmp_path / 'two.pth'
    )
    classifier = {
        name: tensor[:-1] if 'cls_convs' in name else tensor for name, tensor in content['state_dict'].items()
    }
    save_checkpoint(classifier, tmp_path / 'nameless.pth')
    (tmp_path / 'cut.pth').write_bytes(checkpoint.read_bytes()[:5000])
    for file, words in (
        ('none.pth', [f'{tmp_path}/none.pth', 'latest.pth']),
        (
            'two.pth',
            ['has 3: brick, leaf, pond', 'has 2: brick, leaf', 'checkpoint that was trained on these'],
        ),
        ('nameless.pth', ['does not fit', 'bbox_head.cls_convs', 'data set with its classes']),
        ('cut.pth', ['damaged', 'again']),
    ):
        said = stopped('test', PLAIN, file)
        assert all(word in said for word in (file, *words)), said
    said = stopped('test', PLAIN, checkpoint, **{'model.backbone.width': 1 / 8})
    assert all(word in said for word in ('ssd.pth', 'backbone.features.0.weight', 'Use the config')), said
    for options in (['--resume', 'none.pth'], ['--cfg-options', 'load_from=none.pth']):
        assert 'none.pth' in stopped('train', PLAIN, *options)
    said = stopped('train', PLAIN, '--resume', checkpoint)
    assert all(word in said for word in ('ssd.pth', 'has no optimizer', 'load_from=')), said


def test_teachers_of_something_else(stopped, teacher, tmp_path):
    more = save_teacher(tmp_path / 'more.pth', classes=('brick', 'leaf', 'pond', 'tree'))
    order = save_teacher(tmp_path / 'order.pth', classes=('leaf', 'brick', 'pond'))
    for file, options, words in (
        (
            Path('none.pth'),
            {},
            ['tools/train.py configs_dev/teachers/NAME.py', 'Put the published file there'],
        ),
        (more, {}, ['fc.bias', '[4]', '[3]', 'trained on this data set']),
        (order, {}, ["['leaf', 'brick', 'pond']", "['brick', 'leaf', 'pond']", 'Train a teacher']),
        (
            teacher,
            {'model.distiller.teacher.arch': 'resnet34'},
            ['not the teacher of this config', 'Check arch'],
        ),
    ):
        said = stopped('train', DISTILLED, teacher=file, **options)
        assert all(word in said for word in (file.name, *words)), said


# Weights that training starts from


def test_imagenet_weights_that_cannot_be_had_stop_training(stopped, tmp_path, monkeypatch):
    """Nothing is cached, and every address refuses at once."""
    environment = dict.fromkeys(('http_proxy', 'https_proxy'), 'http://127.0.0.1:9') | {'no_proxy': ''}
    for key, value in {**environment, 'TORCH_HOME': str(tmp_path / 'torch_home')}.items():
        monkeypatch.setenv(key, value)
    published = {'weights': 'IMAGENET1K_FEATURES', 'width': 1, 'batch_norm': False}
    said = stopped('train', PLAIN, **{f'model.backbone.{key}': value for key, value in published.items()})
    assert re.search(
        r'error: the ImageNet weights of vgg16 are not available: .*vgg16_features-[-\w]+\.pth', said
    )
    for words in (f'{tmp_path}/torch_home/hub/checkpoints', '--cfg-options model.backbone.weights=None'):
        assert words in said
    assert not list(tmp_path.rglob('*.pth'))


def test_weights_to_start_from_are_asked_for_by_training_alone(
    stopped, root, checkpoint, tmp_path, monkeypatch
):
    options = {'model__backbone__weights': str(tmp_path / 'none.pth'), 'train_cfg__max_iters': 1}
    first = small_config(root, tmp_path / 'run', **{**options, 'model__backbone__weights': None})
    train(first)
    resumed = small_config(root, tmp_path / 'run', **{**options, 'train_cfg__max_iters': 2})
    resumed.resume = True
    assert train(resumed).iter == 2
    options['test_ann'] = 'annotations/val.json'
    arguments = [str(PLAIN), str(checkpoint), '--data-root', str(root), *as_arguments(options_of(**options))]
    assert 'coco/bbox_mAP' in test_tool.main(arguments)
    said = stopped('train', PLAIN, **options)
    assert all(word in said for word in (f'{tmp_path}/none.pth', 'model.backbone.weights=None')), said


# Image files

DAMAGES: dict[str, Callable[[bytes], bytes] | None] = {
    'the file is missing': None,
    'the file is empty': lambda data: b'',
    'the file is truncated': lambda data: data[: len(data) // 2],
    'the file is not an image': lambda data: b'sorry, not found',
}


def damage(file: Path, reason: str) -> None:
    change = DAMAGES[reason]
    content = file.read_bytes()
    file.unlink()
    if change is not None:
        file.write_bytes(change(content))


@pytest.mark.parametrize('workers', [0, 1])
def test_a_bad_image_stops_training(stopped, root, workers):
    damage(root / 'train/1.jpg', 'the file is truncated')
    shown = {'train_dataloader__sampler__shuffle': False, 'train_dataloader__num_workers': workers}
    said = stopped('train', PLAIN, **shown)
    where = f'{root}/train/1.jpg (image 1 of {root}/annotations/train.json): the file is truncated.'
    assert said.startswith(f'error: {where}')
    assert 'train_dataloader.dataset.on_bad_image=skip' in said


def test_batches_without_any_good_image_are_blank(root, teacher, tmp_path):
    """What is listed of them: tests/integration/test_planted_faults.py."""
    for img_id, reason in enumerate(['the file is empty', 'the file is truncated'], start=1):
        damage(root / f'train/{img_id}.jpg', reason)
    skip = {'train_dataloader__dataset__on_bad_image': 'skip'}
    cfg = small_config(root, tmp_path / 'run', teacher, train_dataloader__sampler__shuffle=False, **skip)
    runner = train(cfg)
    assert runner.iter == 3
    assert all(torch.isfinite(value).all() for value in runner.model.state_dict().values())
    assert 'no image of batch 1 could be used' in log_of(tmp_path / 'run')


def log_of(folder: Path) -> str:
    return ''.join(file.read_text() for file in folder.rglob('*.log'))


def empty_photos(root: Path) -> None:
    for file in (root / 'val').iterdir():
        file.write_bytes(b'')


def without_boxes(root: Path) -> None:
    edit(root / 'annotations/val.json', lambda content: content.update(annotations=[]))


@pytest.mark.parametrize('change', [empty_photos, without_boxes])
def test_without_anything_to_score_there_is_no_best(root, tmp_path, change):
    change(root)
    train(small_config(root, tmp_path / 'run', train_cfg__max_iters=1))
    assert not [*(tmp_path / 'run').glob('best*')]
    assert 'nothing to score: ' in log_of(tmp_path / 'run')


def test_all_photos_of_a_split_missing_stops_training(stopped, root):
    for file in (root / 'val').iterdir():
        file.unlink()
    assert 'val holds none of the 3 images of' in stopped('train', PLAIN)


@pytest.fixture
def exam(tiny_coco, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments that test a detector that finds every object, on four images of one object each."""
    monkeypatch.chdir(tmp_path)
    root = tiny_coco(images=4, objects=1, classes=('brick',), size=(128, 128), crowds=1, split='val')
    (root / 'annotations/train.json').write_bytes((root / 'annotations/val.json').read_bytes())
    (tmp_path / 'toy.py').write_text(
        f"_base_ = {str(PLAIN)!r}\ncustom_imports = dict(imports=['tests.helpers.toy_detector'])\n"
        "model = dict(_delete_=True, type='ToyDetector', num_classes=1, "
        "data_preprocessor=dict(type='ToyPreprocessor'))\n"
    )
    torch.save({'move': torch.zeros(1)}, tmp_path / 'toy.pth')
    name = f'tiny_run_{next(NUMBER)}'
    options = {**SPLITS, 'test_dataloader.num_workers': 0}
    return [
        'toy.py',
        'toy.pth',
        '--data-root',
        str(root),
        *as_arguments({**options, 'experiment_name': name}),
    ]


OPTION = 'test_dataloader.dataset.on_bad_image'


def test_in_evaluation_a_bad_image_is_one_without_detections(exam, tmp_path):
    damage(tmp_path / 'tiny/val/2.jpg', 'the file is truncated')
    numbers = test_tool.main(exam)
    assert numbers['coco/bbox_mAP'] == pytest.approx(76 / 101)  # recall 3 / 4 on a grid of 101
    (bad,) = json.loads((tmp_path / 'work_dirs/toy/bad_data.json').read_text())['images']
    assert (bad['split'], bad['img_id'], bad['reason']) == ('test', 2, 'the file is truncated')


def test_in_evaluation_images_without_boxes_count_and_crowds_do_not(exam, tmp_path):
    assert test_tool.main(exam)['coco/bbox_mAP'] == pytest.approx(1)
    file = tmp_path / 'tiny/annotations/val.json'
    edit(file, lambda content: content['annotations'].pop(-1))  # of image 4
    exam[-1] += '_again'
    (tmp_path / 'tiny/val/4.jpg').unlink()
    with pytest.raises(ValueError, match=r'val/4\.jpg \(image 4') as error:  # it is read all the same
        test_tool.main([*exam, f'{OPTION}=fail'])
    assert f'{OPTION}=skip' in str(error.value)
