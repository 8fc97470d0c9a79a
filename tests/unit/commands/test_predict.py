"""Detections of photos and videos as pictures, JSON, CSV and YOLO labels."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet.commands.predict import main, name_results
from mmdet.datasets import CocoDataset
from tests.helpers.tiny_run import PLAIN, save_detector

CONFIG = str(PLAIN)
CLASSES = ['ant', 'bee', 'cat']


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> str:
    return str(save_detector(tmp_path_factory.mktemp('weights') / 'x.pth', classes=CLASSES))


@pytest.fixture
def predict(checkpoint, tmp_path):
    """`predict('a.jpg', '--recursive')` runs the command in `tmp_path`; returns its exit status."""

    def run(*words: str | Path) -> int:
        paths, options = [], [str(word) for word in words]
        while options and not options[0].startswith('--'):
            paths.append(options.pop(0))
        out = ['--out-dir', str(tmp_path / 'out'), '--device', 'cpu']
        return main([*paths, CONFIG, checkpoint, *out, *options])

    return run


def photo(file: Path, size: tuple[int, int] = (60, 80)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    return file


def written(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob('*') if file.is_file())


def test_every_file_has_a_picture_of_its_own(predict, tmp_path):
    for name in ('a.jpg', 'a.png', 'b.tif', 'deep/a.jpg', 'deep/notes.txt', 'out/old.jpg'):
        photo(tmp_path / name) if not name.endswith('txt') else (tmp_path / name).touch()
    assert predict(tmp_path, '--recursive') == 0
    assert written(tmp_path / 'out') == ['a.jpg.jpg', 'a.png.jpg', 'b.jpg', 'deep/a.jpg', 'old.jpg']
    assert cv2.imread(str(tmp_path / 'out/b.jpg')).shape == (60, 80, 3)


def test_bad_files_are_skipped_told_and_counted(predict, tmp_path, capsys):
    photo(tmp_path / 'in/a.jpg')
    for name in ('in/b.jpg', 'in/c.mp4'):
        (tmp_path / name).write_bytes(b'none')
    photo(tmp_path / 'in/d.jpg')
    assert predict(tmp_path / 'in', tmp_path / 'in/missing.jpg', '--batch-size', '2') == 1
    out, err = capsys.readouterr()
    assert written(tmp_path / 'out') == ['a.jpg', 'd.jpg']
    for words in (
        'b.jpg: the file is not an image',
        'c.mp4: the file is not a video',
        'missing.jpg: the file is missing',
    ):
        assert words in err
    assert 'in 5 files, 3 of which could not be read' in out


def test_json_csv_and_labels_say_the_same(predict, tmp_path):
    """Of photos of two sizes in one batch; JSON and labels are read as annotations again."""
    photo(tmp_path / 'in/a.jpg'), photo(tmp_path / 'in/deep/b.png', (50, 120))
    words = ['--recursive', '--save', 'json', 'csv', 'yolo', '--batch-size', '2', '--score-thr', '0.36']
    assert predict(tmp_path / 'in', *words) == 0
    out = tmp_path / 'out'
    assert written(out) == ['detections.csv', 'detections.json', 'labels/a.txt', 'labels/deep/b.txt']
    content = json.loads((out / 'detections.json').read_text())
    sizes = {one['id']: (one['file_name'], one['width'], one['height']) for one in content['images']}
    assert [*sizes.values()] == [('a.jpg', 80, 60), ('deep/b.png', 120, 50)]
    assert [one['name'] for one in content['categories']] == CLASSES
    rows = [*csv.DictReader((out / 'detections.csv').open())]
    lines = [
        line for name in ('a', 'deep/b') for line in (out / f'labels/{name}.txt').read_text().splitlines()
    ]
    assert len(rows) == len(lines) == len(content['annotations']) > 4
    for row, line, one in zip(rows, lines, content['annotations'], strict=True):
        file, width, height = sizes[one['image_id']]
        x, y, w, h = one['bbox']
        assert (row['file'], row['class']) == (file, CLASSES[one['category_id'] - 1])
        assert float(row['score']) == pytest.approx(one['score'], abs=1e-4) and one['score'] >= 0.36
        assert [float(row[key]) for key in ('x1', 'y1', 'x2', 'y2')] == pytest.approx(
            [x, y, x + w, y + h], abs=0.01
        )
        label, *shares = map(float, line.split())
        assert label == one['category_id'] - 1
        expected = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
        assert shares == pytest.approx(expected, abs=1e-5)
    data = CocoDataset(str(tmp_path / 'in'), str(out / 'detections.json'), {'img': ''}, [])
    assert len(data) == 2


def test_a_video(predict, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / 'clip.avi'), cv2.VideoWriter.fourcc(*'MJPG'), 10, (80, 60))
    for frame in range(5):
        writer.write(np.full((60, 80, 3), 40 * frame, np.uint8))
    writer.release()
    assert predict(tmp_path / 'clip.avi', '--save', 'pictures', 'yolo', 'json', '--batch-size', '2') == 0
    labels = [f'labels/clip_{frame:06}.txt' for frame in range(5)]
    assert written(tmp_path / 'out') == ['clip.mp4', 'detections.json', *labels]
    video = cv2.VideoCapture(str(tmp_path / 'out/clip.mp4'))
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (5, 10)
    images = json.loads((tmp_path / 'out/detections.json').read_text())['images']
    assert [(one['file_name'], one['frame']) for one in images] == [('clip.avi', frame) for frame in range(5)]


def test_what_cannot_be_done_is_refused_before_the_first_photo(predict, tmp_path, capsys):
    photo(tmp_path / 'out/a.jpg')
    with pytest.raises(ValueError, match=r'a\.jpg would be written over'):
        predict(tmp_path / 'out/a.jpg')
    (tmp_path / 'empty/deep').mkdir(parents=True)
    with pytest.raises(ValueError, match=r'empty holds no image .* --recursive looks into its folders'):
        predict(tmp_path / 'empty')
    order = 'the order is PHOTOS CONFIG CHECKPOINT, and'
    for words, said in (
        (
            ('a.jpg', CONFIG, 'x.pth', '--batch-size', '0'),
            '--batch-size: 0 is not a whole number of at least 1',
        ),
        ((CONFIG, 'x', 'a.jpg'), f'{order} CHECKPOINT is a.jpg'),
        (('a.jpg', 'x.pth', CONFIG), f'{order} CONFIG is x.pth'),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert said in capsys.readouterr().err


def test_no_two_results_share_a_name(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ('a.png', 'a.tif', 'a.png.jpg')]
    assert len(set(name_results(files).values())) == 3
