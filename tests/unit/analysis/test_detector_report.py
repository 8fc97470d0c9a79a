"""The report on a test: numbers of drawn sets, and the page in a real browser."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.logging import MessageHub
from torch import nn

from mmdet.analysis.detector_report import write_detector_report
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric

CHROMIUM = shutil.which('chromium')
FEW = ('brick', 'leaf', 'pond', 'never seen')
MANY = (*(f'class {number}' for number in range(78)), '狗', 'a|b $x$ <i>')


def report(
    root: Path, out: Path, found: list[dict[str, Any]], classes: Any = None
) -> tuple[dict[str, Any], str]:
    """Report on detections of the split `val`, as if a test had just made them; returns numbers and page."""
    (out / 'detections.json').parent.mkdir(parents=True, exist_ok=True)
    (out / 'detections.json').write_text(json.dumps(found))
    ann_file = 'annotations/val.json'
    metainfo = None if classes is None else {'classes': classes}
    dataset = CocoDataset(str(root), ann_file, {'img': 'val/'}, [], metainfo, test_mode=True)
    metric = CocoMetric(str(root / ann_file), classes, outfile_prefix=str(out / 'detections.json'))
    hub = MessageHub('report')
    for seconds in (5.0, 0.4, 0.4):
        hub.update_scalar('test/time', seconds)
        hub.update_scalar('test/data_time', seconds / 4)
    runner: Any = SimpleNamespace(
        cfg=SimpleNamespace(load_from='toy.pth', get=lambda _: None),
        test_loop=SimpleNamespace(
            dataloader=SimpleNamespace(dataset=dataset, batch_size=2),
            evaluator=SimpleNamespace(metrics=[metric]),
        ),
        model=nn.Linear(2, 3), message_hub=hub, world_size=1,
    )  # fmt: skip
    write_detector_report(runner, 'toy.py', out)
    return json.loads((out / 'report.json').read_text()), (out / 'report.html').read_text()


def truth_of(root: Path) -> list[dict[str, Any]]:
    """Detections that are all right, crowds left out."""
    content = json.loads((root / 'annotations/val.json').read_text())
    return [
        {key: one[key] for key in ('image_id', 'category_id', 'bbox')} | {'score': 0.9}
        for one in content['annotations']
        if not one['iscrowd']
    ]


@pytest.mark.parametrize(
    ('classes', 'share'), [(('leaf',), 1), (FEW, 0), (FEW, 0.5), (FEW, 1), (('leaf',), 0), (MANY, 0.5)]
)
@pytest.mark.filterwarnings('error')
def test_any_number_of_classes_and_of_detections(
    tiny_coco: Callable[..., Path], tmp_path: Path, classes: tuple[str, ...], share: float
) -> None:
    shown = classes[:-1] if len(classes) == 4 else classes
    root = tiny_coco(images=6, classes=shown, split='val', empty=1, crowds=2)
    file = root / 'annotations/val.json'
    content = json.loads(file.read_text())
    content['categories'] += [{'id': 900, 'name': 'never seen'}] * (len(classes) == 4)
    file.write_text(json.dumps(content))
    right = truth_of(root)
    numbers, page = report(root, tmp_path / 'out', right[: round(share * len(right))])
    assert [one['name'] for one in numbers['classes']] == list(classes)
    assert sum(one['objects'] for one in numbers['classes']) == numbers['objects'] == len(right) == 15
    counts = np.array(numbers['confusion_matrix'])
    assert counts.shape == (len(classes) + 1,) * 2
    assert np.trace(counts) == round(share * 15) and counts.sum() == 15
    if share:
        assert numbers['best_f1']['recall'] == pytest.approx(round(share * 15) / 15)
        assert numbers['best_f1']['score_threshold'] == pytest.approx(0.9, abs=2e-3)
    else:
        assert numbers['best_f1'] is None and 'No detection is right' in page
    missed = sum(one['missed'] for one in numbers['worst_photos'])
    assert missed == 15 - round(share * 15)
    assert page.count('data:image/jpeg') == len(numbers['worst_photos'])
    assert page.count('<svg') == 3
    unseen = [one for one in numbers['classes'] if one['name'] == 'never seen']
    assert all(one[key] is None for one in unseen for key in ('AP', 'AP50', 'recall', 'best_f1'))
    assert numbers['ms_per_image'] == pytest.approx(200) and numbers['of_which_waiting_for_data'] == 50


def test_photos_that_cannot_be_read_are_passed_over(tiny_coco: Callable[..., Path], tmp_path: Path) -> None:
    root = tiny_coco(images=3, split='val')
    (root / 'val/1.jpg').write_bytes(b'')
    numbers, _ = report(root, tmp_path / 'out', [])
    assert [one['file'] for one in numbers['worst_photos']] == ['2.jpg', '3.jpg']


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: Debian's package of that name")
def test_a_browser_shows_the_page(tiny_coco: Callable[..., Path], tmp_path: Path) -> None:
    root = tiny_coco(images=4, classes=MANY[-2:], split='val')
    report(root, tmp_path / 'out', truth_of(root)[:5])
    file = (tmp_path / 'out/report.html').as_uri()
    for name, scheme, width in (('light', 1, 1200), ('dark', 0, 500)):
        shot = tmp_path / f'{name}.png'
        options = (f'--window-size={width},2000', f'--blink-settings=preferredColorScheme={scheme}')
        browse(tmp_path, *options, f'--screenshot={shot}', file)
        pixels = cv2.imread(str(shot), cv2.IMREAD_GRAYSCALE)
        assert np.median(pixels) > 240 if scheme else np.median(pixels) < 60
        assert pixels.std() > 10
    shown = browse(tmp_path, '--dump-dom', file)
    assert '<td>狗</td>' in shown and '<td>a/b $x$ &lt;i&gt;</td>' in shown
    assert shown.count('<svg') == 3 and '<script' not in shown


def browse(folder: Path, *arguments: str) -> str:
    """Run Chromium without a window or a network; returns what it prints."""
    command = [
        CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={folder / "profile"}',
        '--host-resolver-rules=MAP * ~NOTFOUND', *arguments,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
