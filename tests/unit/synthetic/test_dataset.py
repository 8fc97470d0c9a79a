import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mmdet.synthetic.dataset import CATEGORY_IDS, CLASSES, MIN_SIDE, SPLITS, draw_scene, make_dataset
from mmdet.synthetic.objects import KINDS, draw_object

LIGHT = np.array([-0.5, -0.5, 0.7], np.float32)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('generated')
    assert make_dataset(folder, train=24, val=6, seed=3)
    return folder


@pytest.mark.parametrize('split', SPLITS)
def test_set_is_sound_coco(root, split):
    coco = COCO(root / 'annotations' / f'instances_{split}2017.json')
    assert len(coco.imgs) == {'train': 24, 'val': 6}[split]
    assert {one['name'] for one in coco.cats.values()} == set(CLASSES)
    assert tuple(coco.cats) == CATEGORY_IDS and max(coco.cats) > len(coco.cats)
    for img_id, image in coco.imgs.items():
        pixels = cv2.imread(str(root / f'{split}2017' / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3)
        assert image['file_name'] == f'{img_id:012d}.jpg'
    for annotation in coco.anns.values():
        x, y, w, h = annotation['bbox']
        image = coco.imgs[annotation['image_id']]
        assert 0 <= x < x + w <= image['width'] and 0 <= y < y + h <= image['height']
        assert min(w, h) >= MIN_SIDE
        assert 0 < annotation['area'] <= w * h
        assert annotation['category_id'] in CATEGORY_IDS


def test_segmentation_agrees_with_area_and_box(root):
    coco = COCO(root / 'annotations' / 'instances_train2017.json')
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        if annotation['iscrowd']:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            low, high = np.array([columns[0], rows[0]]), np.array([columns[-1], rows[-1]])
            assert mask.sum() == annotation['area']
        else:  # polygons run through the middle of the outermost pixels, and have no holes
            corners = np.concatenate(annotation['segmentation']).reshape(-1, 2)
            low, high = corners.min(0), corners.max(0)
            assert mask.sum() > 0.7 * annotation['area']
        assert np.abs([*low, *(high + 1 - low)] - np.array(annotation['bbox'])).max() <= 1


def test_set_holds_every_case():
    scenes = [draw_scene(0, 'train', i, size=128) for i in range(100)]
    counts = [len(scene.annotations) for scene in scenes]
    annotations = [one for scene in scenes for one in scene.annotations]
    assert 0 in counts and max(counts) >= 5
    assert {one['category_id'] for one in annotations} == set(CATEGORY_IDS)
    assert any(one['iscrowd'] for one in annotations)
    sides = [max(one['bbox'][2:]) / 128 for one in annotations if not one['iscrowd']]
    assert min(sides) < 0.12 and max(sides) > 0.6
    assert np.mean([0.2 < side < 0.6 for side in sides]) > 0.6
    assert {scene.image.shape[:2] for scene in scenes} >= {(96, 128), (128, 96), (128, 128)}


def test_scene_is_a_function_of_its_arguments():
    first = draw_scene(5, 'val', 7, size=128)
    draw_scene(5, 'val', 8, size=128)
    again = draw_scene(5, 'val', 7, size=128)
    assert np.array_equal(first.image, again.image) and first.annotations == again.annotations
    for other in (draw_scene(6, 'val', 7, size=128), draw_scene(5, 'train', 7, size=128)):
        assert other.image.shape != first.image.shape or not np.array_equal(other.image, first.image)


def test_images_do_not_depend_on_how_many_there_are(root, tmp_path):
    make_dataset(tmp_path, train=3, val=0, seed=3)
    for file in (tmp_path / 'train2017').iterdir():
        assert file.read_bytes() == (root / 'train2017' / file.name).read_bytes()
    assert not {file.name for file in (root / 'train2017').iterdir()} & {
        file.name for file in (root / 'val2017').iterdir()
    }


@pytest.mark.parametrize('name', KINDS)
def test_object_fills_its_box(name):
    for seed in range(5):
        found = draw_object(name, 60, LIGHT, np.random.default_rng(seed))
        assert found.pixels.shape == (*found.alpha.shape, 3)
        assert found.pixels.min() >= 0 and found.pixels.max() <= 255
        assert found.alpha.max() == 1 and found.alpha.mean() > 0.15
        rims = found.alpha[0], found.alpha[-1], found.alpha[:, 0], found.alpha[:, -1]
        assert all(rim.any() for rim in rims)
        assert 35 < max(found.alpha.shape) < 100


def test_same_set_is_kept_and_another_refused(tmp_path):
    arguments = {'train': 2, 'val': 1, 'seed': 1, 'size': 96}
    assert make_dataset(tmp_path, **arguments)
    assert not make_dataset(tmp_path, **arguments)
    with pytest.raises(FileExistsError, match='another folder'):
        make_dataset(tmp_path, **arguments | {'seed': 2})
    (tmp_path / 'annotations' / 'instances_val2017.json').unlink()  # interrupted
    assert make_dataset(tmp_path, **arguments)


def test_foreign_annotations_are_not_overwritten(tmp_path):
    file = tmp_path / 'annotations' / 'instances_val2017.json'
    file.parent.mkdir()
    file.write_text('[1, 2')
    with pytest.raises(FileExistsError):
        make_dataset(tmp_path, train=1, val=1)
    assert file.read_text() == '[1, 2'


@pytest.mark.parametrize('wrong', [{'train': -1}, {'seed': -1}, {'size': 20}])
def test_senseless_arguments_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match='need train'):
        make_dataset(tmp_path, **{'train': 1, 'val': 1} | wrong)
