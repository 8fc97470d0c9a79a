from pathlib import Path

import cv2
import pytest

from mmdet.commands.browse_dataset import main
from mmdet.synthetic.dataset import make_dataset

CONFIG = Path(__file__).parents[3] / 'configs' / 'ssd' / 'ssd300.py'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('browsed')
    make_dataset(folder, train=8, val=4, size=128)
    return folder


def browse(root, out_dir, *arguments):
    main([str(CONFIG), '--data-root', str(root), '--out-dir', str(out_dir), *arguments])
    return {file.name: cv2.imread(str(file)) for file in sorted(out_dir.iterdir())}


def test_training_samples_are_augmented_and_seeded(root, tmp_path):
    pictures = browse(root, tmp_path / 'one', '--number', '10')
    assert len(pictures) == 11 and pictures['sheet.png'].shape[1] > 4 * 300
    assert all(picture.shape == (300, 300, 3) for name, picture in pictures.items() if name != 'sheet.png')
    device = ('--cfg-options', 'train_dataloader.dataset.pipeline.7.decode=device')  # shows the same
    again = browse(root, tmp_path / 'two', '--number', '10', *device)
    assert all((again[name] == picture).all() for name, picture in pictures.items())


def test_validation_samples_come_with_their_boxes(root, tmp_path):
    pictures = browse(root, tmp_path / 'out', '--split', 'val', '--number', '4')
    assert [name.split('_')[-1] for name in pictures] == ['2.png', '4.png', '6.png', '8.png', 'sheet.png']


def test_pictures_that_cannot_be_read_are_named(root, tmp_path, capsys):
    broken = tmp_path / 'set'
    make_dataset(broken, train=8, val=1, size=128)
    victim = sorted((broken / 'train2017').iterdir())[0]
    victim.write_bytes(b'')
    skip = (
        '--cfg-options',
        'train_dataloader.dataset.on_bad_image=skip',
        'train_dataloader.dataset.filter_empty_gt=False',
    )
    pictures = browse(broken, tmp_path / 'out', '--number', '8', *skip)
    assert len(pictures) == 8
    assert victim.name in capsys.readouterr().out
    for file in victim.parent.iterdir():
        file.write_bytes(b'')
    with pytest.raises(ValueError, match='not one of these images of train can be read'):
        browse(broken, tmp_path / 'none', '--number', '2', *skip)
