"""The sheet of what a teacher sees, with a teacher and a student of random weights."""

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
from mmdet.commands import report
from mmdet.commands import teacher as browse_teacher
from mmdet.registry import MODELS
from mmdet.structures import PositiveSamples
from tests.helpers.tiny_run import PLAIN, options_of, small_config


def test_the_crops_are_those_of_the_distiller(
    root: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = small_config(root, tmp_path, teacher)
    distiller, preprocessor = build_distiller(cfg)
    (batch, *_) = read_batches(cfg, 'val', preprocessor)
    gt, source = batch.gt, preprocessor.normalization
    found = teacher_predict(distiller, batch.images, source, gt.gt_bboxes, gt.gt_image)
    seen = []
    logits = distiller.teacher.logits
    monkeypatch.setattr(distiller.teacher, 'logits', lambda *given: seen.append(given[0]) or logits(*given))
    nothing = torch.zeros(0, dtype=torch.long)
    positives = PositiveSamples(
        torch.zeros(0, 4), torch.zeros(0, 4), nothing, gt.gt_bboxes, gt.gt_labels, gt.gt_ann_ids, gt.gt_image
    )
    distiller.kd_loc = None
    distiller(batch.images, source, positives)
    pixels = seen[0] * source.std[:, None, None] + source.mean[:, None, None]
    torch.testing.assert_close(found.crops, pixels.clamp(0, 255))
    torch.testing.assert_close(found.logits, logits(seen[0], source))


def test_areas_are_those_of_the_annotations(root: Path, teacher: Path, tmp_path: Path) -> None:
    cfg = small_config(root, tmp_path, teacher)
    _, preprocessor = build_distiller(cfg)
    found = torch.cat([box_areas(batch.gt) for batch in read_batches(cfg, 'val', preprocessor)])
    annotations = json.loads((root / 'annotations' / 'val.json').read_text())['annotations']
    np.testing.assert_allclose(found.numpy(), [one['area'] for one in annotations], rtol=1e-4)


def test_the_sheet_alone_and_beside_a_student(
    root: Path, teacher: Path, typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    student = MODELS.build({**small_config(root, tmp_path, teacher).model, 'distiller': None})
    torch.save({'state_dict': student.state_dict()}, tmp_path / 'student.pth')
    out = tmp_path / 'new' / 'sheet.png'

    def sheet(*more: str) -> np.ndarray:
        browse_teacher.main([*typed, '--out', str(out), *more])
        return cv2.imread(str(out))

    alone = sheet('--number', '4')
    beside = sheet('--number', '4', '--checkpoint', str(tmp_path / 'student.pth'))
    assert alone.shape[0] == beside.shape[0]
    assert beside.shape[1] == 2 * alone.shape[1] - 10  # one margin less
    assert sheet('--number', '100', '--split', 'train').shape[0] > 2 * alone.shape[0]
    (root / 'val/1.jpg').write_bytes(b'')
    assert sheet('--number', '4').shape[0] <= alone.shape[0]
    assert f'left out: {root / "val/1.jpg"}: ' in capsys.readouterr().out


def test_what_cannot_be_shown_is_told(
    root: Path, teacher: Path, typed: list[str], tiny_coco: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match='give the config of a distilled student'):
        load_distilled_config(str(PLAIN), None, options_of(), str(root), 'val')
    student = MODELS.build({**small_config(root, tmp_path, teacher).model, 'distiller': None})
    file = tmp_path / 'student.pth'
    torch.save(
        {'state_dict': student.state_dict(), 'meta': {'dataset_meta': {'classes': ('a', 'b', 'c')}}}, file
    )
    with pytest.raises(ValueError, match=f'classes differ.*\n.*\n *{file} has 3: a, b, c'):
        browse_teacher.main([*typed, '--checkpoint', str(file)])
    tiny_coco(root=root, split='val', images=2, empty=2)
    for tool in (report, browse_teacher):
        with pytest.raises(ValueError, match='no objects'):
            tool.main(typed)
    torch.save({**torch.load(teacher), 'crop_size': 48}, teacher)
    with pytest.raises(ValueError, match='crop_size=48'):
        report.main(typed)
