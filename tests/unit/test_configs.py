"""Every config that a user can name."""

import re
from pathlib import Path

import pytest
import torch

from mmdet.config.resolve import load_config, merge_config
from mmdet.config.rows import ROWS, apply_row
from mmdet.distillation import FrozenTeacher
from mmdet.engine import DetRunner
from mmdet.registry import MODELS
from tests.helpers.tiny_run import CLASSES, NUMBER, ROOT, be_quick, save_teacher, write_sets

CONFIGS = sorted(
    file.relative_to(ROOT)
    for folder in ('configs', 'configs_dev')
    for file in (ROOT / folder).rglob('*.py')
    if '_base_' not in file.parts and not file.stem.endswith('_stored')  # tests/unit/analysis/test_answers.py
)
TEACHERS = [file for file in CONFIGS if 'teachers' in file.parts]
DISTILLED = [file for file in CONFIGS if file.parts[0] == 'configs_dev' and file not in TEACHERS]
BY_NAME = pytest.mark.parametrize('file', CONFIGS, ids=str)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    be_quick(monkeypatch)


@pytest.fixture
def other_set(tiny_coco, tmp_path: Path) -> dict[str, str]:
    """The seven keys of a set whose folders and files have names of their own."""
    root = write_sets(tiny_coco, tmp_path / 'set')
    tiny_coco(root=root, split='exam')
    (root / 'annotations').rename(root / 'lists')
    return {'data_root': str(root)} | {
        f'{key}_{kind}': value.format(split)
        for key, split in (('train', 'train'), ('val', 'val'), ('test', 'exam'))
        for kind, value in (('ann', 'lists/{}.json'), ('img', '{}/'))
    }


@pytest.fixture(scope='module')
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Teachers of random weights, by arch."""
    folder = tmp_path_factory.mktemp('teachers')
    archs = ('resnet18', 'timm/tf_efficientnet_lite2')
    return {arch: save_teacher(folder / f'{Path(arch).name}.pth.tar', arch) for arch in archs}


def student_of(file: Path) -> Path:
    """The plain student of a distilled config: the file whose name begins its own, the longest such."""
    plain = (ROOT / 'configs' / file.parent.name).glob('*.py')
    return max((each for each in plain if file.name.startswith(each.stem)), key=lambda each: len(each.stem))


@BY_NAME
def test_it_builds_and_its_data_move_by_seven_keys(file, other_set, teachers, tmp_path, monkeypatch):
    """Model, data sets, metrics, hooks, optimizer and schedules; nothing is asked from the network."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'no_cache'))
    monkeypatch.setattr('torch.hub.urlopen', lambda *call, **options: pytest.fail('asks the network'))
    monkeypatch.chdir(tmp_path)
    for name in ('kaiming_uniform_', 'kaiming_normal_', 'normal_'):  # random weights take long to draw
        monkeypatch.setattr(f'torch.nn.init.{name}', lambda tensor, *_, **__: tensor)
    options = {**other_set, 'experiment_name': f'config_{next(NUMBER)}', 'log_level': 'WARNING'}
    merged = merge_config(ROOT / file)
    apply_row(merged)
    teacher = (merged.model.get('distiller') or {}).get('teacher')
    if teacher is not None:
        arch = teacher.arch.replace('resnet50', 'resnet18')  # which is read in half a second
        given = {'arch': arch, 'checkpoint': str(teachers[arch])}
        options |= {f'model.distiller.teacher.{key}': value for key, value in given.items()}
    cfg = load_config(ROOT / file, options)
    cfg.work_dir = str(tmp_path / 'run')
    runner = DetRunner.from_cfg(cfg)
    root = other_set['data_root']
    for loop, split, images in (
        (runner.train_loop, 'train', 6),
        (runner.val_loop, 'val', 3),
        (runner.test_loop, 'exam', 4),
    ):
        dataset = loop.dataloader.dataset
        assert len(dataset) == images
        assert dataset.ann_file == Path(root, f'lists/{split}.json')
        assert dataset.image_file(1) == Path(root, split, '1.jpg')
        assert dataset.metainfo['classes'] == CLASSES
        for metric in [] if split == 'train' else loop.evaluator.metrics:
            assert Path(getattr(metric, 'ann_file', dataset.ann_file)) == dataset.ann_file
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    assert runner.build_param_scheduler(cfg.param_scheduler)
    if file in TEACHERS:
        assert len(list(runner.model.network.parameters())[-1]) == len(CLASSES)
        return
    assert runner.model.head.num_classes == len(CLASSES)
    assert (runner.model.distiller is not None) == (file in DISTILLED)
    if teacher is not None:
        assert len(list(runner.model.distiller.teacher.parameters())[-1]) == len(CLASSES)


@pytest.mark.parametrize('file', DISTILLED, ids=str)
def test_a_distilled_config_adds_only_the_distiller(file):
    distilled = merge_config(ROOT / file).to_dict()
    assert distilled['model'].pop('distiller')['type'] == 'ClassifierDistiller'
    assert distilled.pop('row', 'all') in ROWS
    assert distilled == merge_config(student_of(file)).to_dict()


@pytest.mark.parametrize('file', DISTILLED, ids=str)
def test_localization_weights_are_those_published_whatever_the_normalization(file, capsys):
    """0.15 per std of the student's images, for the pixels as for the features: what they were before the
    pixels were measured in gray levels. No hint then."""
    model = merge_config(ROOT / file).model
    if model.distiller.kd_loc is None:  # recognition alone
        assert Path(file).stem.endswith('_recipe')
        return
    loss = MODELS.build({**model.distiller.kd_loc, 'type': 'CropL1Loss'})
    std = MODELS.build(model.data_preprocessor).std.mean()
    unit = {'pixels': float(std)}
    in_std = [w * unit.get(level, 1) for level, w in zip(loss.levels, loss.weights, strict=True)]
    assert in_std == pytest.approx([0.15, 0.15], rel=1e-6)
    assert 'gray levels' not in capsys.readouterr().err


@pytest.mark.parametrize(
    ('name', 'loss'), [('dkd', 'DKDLoss'), ('dist', 'DISTLoss'), ('lstd', 'StandardizedKDLoss')]
)
def test_losses_for_strong_teachers_are_children_that_change_one_key(name, loss):
    folder = ROOT / 'configs_dev/ssd'
    published, child = (
        merge_config(folder / f'ssd300_coco_cls_loc{suffix}.py').model.distiller.to_dict()
        for suffix in ('', f'_{name}')
    )
    assert type(MODELS.build(child.pop('kd_cls'))).__name__ == loss
    published.pop('kd_cls')
    assert child == published


@pytest.mark.parametrize('name', ['ssd300', 'ssd512'])
def test_mmdetections_names_are_the_same_configs(name):
    ours, theirs = (merge_config(ROOT / f'configs/ssd/{file}.py') for file in (name, f'{name}_coco'))
    assert ours.to_dict() == theirs.to_dict()


@pytest.mark.parametrize('name', ['ssd300', 'ssd512'])
def test_the_line_that_the_readme_tells_to_edit(name):
    text = (ROOT / f'configs_dev/ssd/{name}_coco_cls_loc.py').read_text()
    assert "\ndata_root = 'data/coco2017/'  # set this to your COCO 2017\n" in text


@pytest.mark.parametrize(('name', 'size', 'anchors'), [('ssd300', 300, 8732), ('ssd512', 512, 24564)])
def test_anchors(name, size, anchors):
    with torch.device('meta'):  # shapes alone
        model = MODELS.build(merge_config(ROOT / f'configs/ssd/{name}.py').model).eval()
        outputs = model(torch.zeros(1, 3, size, size))
    assert outputs.cls_logits.shape == (1, anchors, 81)
    assert outputs.box_deltas.shape == (1, anchors, 4)
    assert outputs.anchors.boxes.shape == (anchors, 4)


def test_the_message_of_a_missing_teacher_names_the_folder_of_their_configs():
    with pytest.raises(FileNotFoundError) as error:
        FrozenTeacher('resnet18', 'nowhere.pth', num_classes=3)
    (folder,) = re.findall(r'(configs_dev/\S+)/NAME\.py', str(error.value))
    assert {config.parent for config in TEACHERS} == {Path(folder)}


def test_every_teacher_writes_a_file_of_its_own():
    hooks = [merge_config(ROOT / file).default_hooks.save_teacher for file in TEACHERS]
    files = [hook.get('file') for hook in hooks]  # None: in the work dir
    assert len(files) == len(set(files)) == len(TEACHERS)


@pytest.mark.parametrize('name', ['resnet18', 'resnext101'])
def test_teachers_of_the_ablation_change_the_network_alone(name):
    main, child = (
        merge_config(ROOT / f'configs_dev/teachers/{arch}_ssd.py').to_dict() for arch in ('resnet50', name)
    )
    assert child['model'].pop('arch').startswith(name)
    assert main['model'].pop('arch') == 'resnet50'
    assert child['default_hooks']['save_teacher'].pop('file') != main['default_hooks']['save_teacher'].pop(
        'file'
    )
    assert child == main
