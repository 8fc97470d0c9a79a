"""The report on a teacher and the sheet of what it sees, with a teacher and a student of random weights."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmdet.analysis.teacher import (
    box_areas,
    build_distiller,
    load_distilled_config,
    read_batches,
    teacher_predict,
)
from mmdet.commands import report as teacher_report
from mmdet.commands import teacher as browse_teacher
from mmdet.registry import MODELS
from mmdet.structures import PositiveSamples
from tests.helpers.tiny_run import (
    DISTILLED,
    PLAIN,
    as_arguments,
    be_quick,
    options_of,
    save_teacher,
    small_config,
    write_sets,
)


@pytest.fixture
def root(tiny_coco: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    be_quick(monkeypatch)
    return write_sets(tiny_coco, tmp_path / 'set')


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return save_teacher(tmp_path / 'teacher.pth.tar')


def arguments(root: Path, teacher: Path, *more: str) -> list[str]:
    options = as_arguments(options_of(experiment_name='analysis'))
    return [str(DISTILLED), '--teacher', str(teacher), '--data-root', str(root), *options, *more]


def test_the_crops_are_those_of_the_distiller(
    root: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = small_config(root, tmp_path, teacher)
    distiller, preprocessor = build_distiller(cfg, 'cpu')
    (batch, *_) = read_batches(cfg, 'val', preprocessor)
    gt, source = batch.gt, preprocessor.normalization
    found = teacher_predict(distiller, batch.images, source, gt.gt_bboxes, gt.gt_image)
    seen = []
    logits = distiller.teacher.logits
    monkeypatch.setattr(distiller.teacher, 'logits', lambda *given: seen.append(given[0]) or logits(*given))
    nothing = torch.zeros(0, dtype=torch.long)
    positives = PositiveSamples(
        torch.zeros(0, 4), torch.zeros(0, 4), nothing, gt.gt_bboxes, gt.gt_labels, gt.gt_image
    )
    distiller.kd_loc = None
    distiller(batch.images, source, positives)
    pixels = seen[0] * source.std[:, None, None] + source.mean[:, None, None]
    torch.testing.assert_close(found.crops, pixels.clamp(0, 255))
    torch.testing.assert_close(found.logits, logits(seen[0], source))


def test_a_teacher_of_another_crop_side_is_refused(root: Path, tmp_path: Path) -> None:
    file = save_teacher(tmp_path / 'teacher.pth.tar')
    torch.save({**torch.load(file), 'crop_size': 48}, file)
    with pytest.raises(ValueError, match='crop_size=48'):
        teacher_report.main(arguments(root, file, '--out-dir', str(tmp_path / 'report')))


def test_areas_are_those_of_the_annotations(root: Path, teacher: Path, tmp_path: Path) -> None:
    cfg = small_config(root, tmp_path, teacher)
    _, preprocessor = build_distiller(cfg, 'cpu')
    found = torch.cat([box_areas(batch.gt) for batch in read_batches(cfg, 'val', preprocessor)])
    annotations = json.loads((root / 'annotations' / 'val.json').read_text())['annotations']
    np.testing.assert_allclose(found.numpy(), [one['area'] for one in annotations], rtol=1e-4)


def test_the_sheet_alone_and_beside_a_student(root: Path, teacher: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    cfg = small_config(root, tmp_path, teacher)
    student = MODELS.build({**cfg.model, 'distiller': None})
    torch.save({'state_dict': student.state_dict()}, tmp_path / 'student.pth')
    sheets = []
    for name, more in (('one', []), ('two', ['--checkpoint', str(tmp_path / 'student.pth')])):
        out = tmp_path / 'new' / f'{name}.png'
        browse_teacher.main(arguments(root, teacher, '--out', str(out), '--number', '4', *more))
        sheets.append(cv2.imread(str(out)))
    alone, beside = sheets
    assert alone.shape[0] == beside.shape[0]
    assert beside.shape[1] == 2 * alone.shape[1] - 10  # one margin less
    browse_teacher.main(arguments(root, teacher, '--out', str(out), '--number', '100', '--split', 'train'))
    assert cv2.imread(str(out)).shape[0] > 2 * alone.shape[0]


def test_a_plain_config_and_a_set_without_objects_are_told(
    root: Path, teacher: Path, tiny_coco: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match='give the config of a distilled student'):
        load_distilled_config(str(PLAIN), data_root=str(root), cfg_options=options_of())
    tiny_coco(root=root, split='val', images=2, empty=2)
    for tool in (teacher_report, browse_teacher):
        with pytest.raises(ValueError, match='no objects'):
            tool.main(arguments(root, teacher))
    with pytest.raises(ValueError, match='--number'):
        browse_teacher.main(arguments(root, teacher, '--number', '0'))
