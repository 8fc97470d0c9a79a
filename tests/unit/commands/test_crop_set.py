import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchvision.datasets import ImageFolder

from mmdet.commands.crop_set import main, safe
from mmdet.config.resolve import load_config
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import crop_boxes
from tests.helpers.tiny_run import ROOT, SPLITS, as_arguments

CONFIG = ROOT / 'configs_dev/teachers/resnet50_ssd.py'
CLASSES = ('traffic light', 'a/b: c', 'pond', 'moon')  # nothing shows the moon
MIN_SIDE = 60
OPTIONS: dict[str, Any] = {
    **SPLITS,
    'model.arch': 'resnet18',
    'model.crop_size': 32,
    'train_dataloader.batch_size': 2,
    'train_dataloader.num_workers': 0,
    'val_dataloader.num_workers': 0,
}


@pytest.fixture
def root(tiny_coco: Callable[..., Path], tmp_path: Path) -> Path:
    """Five photos to train on, one of them without objects, and three others."""
    root = tiny_coco(images=5, empty=1, crowds=2, classes=CLASSES[:3], root=tmp_path / 'set')
    tiny_coco(images=3, classes=CLASSES[:3], split='val', seed=1, root=root)
    for file in (root / 'annotations').iterdir():
        content = json.loads(file.read_text())
        content['categories'].append({'id': 99, 'name': CLASSES[3]})
        file.write_text(json.dumps(content))
    return root


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def words(root: Path, *more: object, **options: object) -> list[str]:
    changed = {key.replace('__', '.'): value for key, value in options.items()}
    return [str(CONFIG), '--data-root', str(root), *map(str, more), *as_arguments({**OPTIONS, **changed})]


def expected_crops(root: Path, split: str) -> dict[tuple[str, int], np.ndarray]:
    """RGB pixels by file name and label, one object after the other; those below MIN_SIDE are missing."""
    cfg = load_config(CONFIG, OPTIONS, root)
    dataset = DATASETS.build({'seed': 0, **cfg[f'{split}_dataloader'].dataset})
    mean = MODELS.build(cfg.model.data_preprocessor).mean[:, None, None]
    crops = {}
    for row in range(len(dataset)):
        sample = dataset[row]
        image = sample['img'].flip(0)[None] - mean  # std is 1
        for number, (box, label) in enumerate(zip(sample['bboxes'], sample['labels'], strict=True)):
            if (box[2:] - box[:2]).min() >= MIN_SIDE:
                crop = crop_boxes(image, box[None], torch.tensor([0]), 32)[0] + mean
                crops[f'{sample["img_id"]}_{number}.png', int(label)] = crop.permute(1, 2, 0).numpy()
    return crops


def check_folder(out: Path, split: str, expected: dict[tuple[str, int], np.ndarray]) -> None:
    """The folder as torchvision reads it."""
    folder = ImageFolder(str(out / split), allow_empty=True)
    assert folder.classes == ['00_traffic light', '01_a_b_ c', '02_pond', '03_moon']
    assert tuple(json.loads((out / 'classes.json').read_text()).values()) == CLASSES
    written = {(Path(file).name, label): file for file, label in folder.samples}
    assert written.keys() == expected.keys()
    for key, file in written.items():
        pixels = cv2.imread(file)[..., ::-1].astype(np.float32)
        np.testing.assert_allclose(pixels, expected[key].clip(0, 255), atol=0.51)


@pytest.mark.parametrize(('split', 'jitter'), [('train', 0.0), ('val', 0.2)])
def test_the_folder_holds_the_crops_of_the_teacher(
    split: str, jitter: float, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the validation split without jitter."""
    options = {'model__min_side': MIN_SIDE, 'model__box_jitter': jitter}
    main(words(root, '--export', tmp_path / 'crops', '--split', split, **options))
    expected = expected_crops(root, split)
    check_folder(tmp_path / 'crops', split, expected)
    said, progress = capsys.readouterr()
    images = {'train': 4, 'val': 3}[split]
    left_out = images * 3 - len(expected)
    assert left_out > 0
    assert f'{len(expected)} crops of 4 classes' in said
    assert f'{left_out} objects left out: a side below min_side={MIN_SIDE} pixels' in said
    assert f'{images}/{images}' in progress


def test_counts_say_how_often_an_epoch_shows_each_class(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = root / 'annotations/train.json'
    content = json.loads(file.read_text())
    content['annotations'][0]['category_id'] = 99  # the moon, in one of four photos with objects
    file.write_text(json.dumps(content))
    main(words(root, train_dataloader__sampler__times=3, train_dataloader__sampler__repeat_thr=1))
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in said.splitlines() if '|' in line]
    table = {name: [int(cell) for cell in cells] for name, *cells in rows[1:]}
    assert tuple(table) == (*CLASSES, 'all')
    assert table['moon'] == [1, 1, 3 * 2]  # sqrt(1 / (1 / 4))
    assert table['all'][:2] == [4, 12]
    assert table['all'][2] == sum(table[name][2] for name in CLASSES)
    assert '2 crowds left out' in said


def test_jitter_is_seeded(root: Path, tmp_path: Path) -> None:
    for name, jitter in (('a', 0.2), ('b', 0.2), ('c', 0.0)):
        main(words(root, '--export', tmp_path / name, model__box_jitter=jitter))
    files = sorted(file.relative_to(tmp_path / 'a') for file in (tmp_path / 'a').rglob('*.png'))
    assert files
    first, again, still = ([(tmp_path / name / file).read_bytes() for file in files] for name in 'abc')
    assert first == again
    assert all(one != other for one, other in zip(first, still, strict=True))


def test_what_is_there_stays(root: Path, tmp_path: Path) -> None:
    out = tmp_path / 'crops'
    (out / 'train').mkdir(parents=True)
    (out / 'train/mine.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='train is not empty'):
        main(words(root, '--export', out))
    (out / 'classes.json').write_text('{"00_cat": "cat"}')
    with pytest.raises(ValueError, match='names other classes'):
        main(words(root, '--export', out, '--split', 'val'))
    assert [file.name for file in out.rglob('*') if file.is_file()] == ['classes.json', 'mine.txt']


def test_a_students_config_is_refused(root: Path) -> None:
    student = str(ROOT / 'configs/ssd/ssd_tiny.py')
    with pytest.raises(ValueError, match=r'configs_dev/teachers/resnet50_ssd\.py'):
        main([student, '--data-root', str(root), *as_arguments(SPLITS)])


def test_names_of_folders() -> None:
    assert [safe(name) for name in ('a:b?', 'Größe 3', '..', 'x' * 99)] == ['a_b_', 'Größe 3', '', 'x' * 60]
