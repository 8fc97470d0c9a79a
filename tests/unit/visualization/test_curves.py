import json

import cv2
import pytest
from matplotlib.figure import Figure

from mmdet.visualization.curves import plot_curves, read_curves


def write(file, *entries, tail=''):
    file.write_text(''.join(json.dumps(entry) + '\n' for entry in entries) + tail)
    return file


def step(number, **scalars):
    return {'lr': 0.01, 'loss': 3.0 / number, 'epoch': 1, 'iter': number, 'step': number} | scalars


def test_a_run_becomes_a_picture(tmp_path, monkeypatch):
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda figure, out: figures.append(figure) or save(figure, out))
    lines = [step(n, loss_cls=2.0 / n, loss_bbox=1.0 / n, loss_kd_cls=0.1) for n in range(1, 90)]
    lines.insert(40, {'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_50': 0.3, 'step': 1})
    lines.append({'coco/bbox_mAP': 0.2, 'coco/bbox_mAP_50': 0.4, 'crops/top1': 0.9, 'step': 2})
    plot_curves([write(tmp_path / 'scalars.json', *lines)], tmp_path / 'new' / 'curves.png')
    picture = cv2.imread(str(tmp_path / 'new' / 'curves.png'))
    assert min(picture.shape[:2]) > 400 and picture.std() > 10
    (figure,) = figures
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert [axes.get_xlabel() for axes in figure.axes] == ['', '', 'step']
    assert 90 < figure.axes[1].get_ylim()[1] <= 100


def test_evaluations_stand_at_the_last_step_before_them(tmp_path):
    file = write(
        tmp_path / 's.json',
        step(10),
        {'coco/bbox_mAP': 0.1, 'step': 1},
        step(20),
        {'coco/bbox_mAP': 0.2, 'step': 20},
    )
    curves = read_curves([file])
    assert curves['coco/bbox_mAP'] == ([10, 20], [0.1, 0.2])
    assert curves['loss'] == ([10, 20], [0.3, 0.15])
    assert not curves.keys() & {'step', 'iter', 'epoch'}


def test_repeated_steps_and_cut_lines(tmp_path):
    file = write(tmp_path / 's.json', step(1), step(2, loss=9.0), step(2, loss=5.0), tail='{"lr": 0.1, "lo')
    assert read_curves([file])['loss'] == ([1, 2], [3.0, 5.0])


def test_starts_of_one_run(tmp_path):
    """Killed after step 4, resumed after step 2 with its evaluation; then a training that begins anew."""
    score = {'coco/bbox_mAP': 0.1, 'step': 2}
    first = write(tmp_path / '1.json', step(1), step(2), score, step(3), step(4), tail='{"lr": 0.')
    second = write(tmp_path / '2.json', score, step(3, loss=9.0), step(5))
    curves = read_curves([first, second])
    assert curves['loss'] == ([1, 2, 3, 5], [3.0, 1.5, 9.0, 0.6])
    assert curves['coco/bbox_mAP'] == ([2], [0.1])
    anew = write(tmp_path / '3.json', step(1, loss=7.0))
    assert read_curves([first, second, anew]) == {'lr': ([1], [0.01]), 'loss': ([1], [7.0])}


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(
    'lines',
    [
        [],
        [{'coco/bbox_mAP': 0.0, 'step': 0}],
        [step(1, loss=float('nan')), {'coco/bbox_mAP': float('nan'), 'step': 1}],
        [step(1, loss=0.0, lr=0.0)],
    ],
    ids=['nothing', 'evaluation only', 'not finite', 'zeros'],
)
def test_runs_with_little_to_show(tmp_path, lines):
    plot_curves([write(tmp_path / 'scalars.json', *lines)], tmp_path / 'curves.png')
    assert cv2.imread(str(tmp_path / 'curves.png')) is not None
