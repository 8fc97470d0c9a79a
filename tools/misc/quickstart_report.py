"""What tools/quickstart.sh ends with: the table, what the teacher saw, whether distillation helped.

python tools/misc/quickstart_report.py work_dirs/quickstart
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from mmdet.analysis.teacher import teacher_sheet
from mmdet.checkpoint.io import load_checkpoint
from mmdet.cli import run_main
from mmdet.visualization.canvas import tile

METRICS = {'AP': 'coco/bbox_mAP', 'AP50': 'coco/bbox_mAP_50', 'AP75': 'coco/bbox_mAP_75'}
PICTURES = 12  # on the sheet of detections


def tested(folder: Path) -> dict[str, float]:
    """The numbers of the newest run of tools/test.py below `folder`."""
    files = sorted(folder.glob('*/*.json'), key=lambda file: file.stat().st_mtime)
    if not files:
        raise FileNotFoundError(f'{folder} holds no result of tools/test.py; run tools/quickstart.sh again')
    numbers: dict[str, float] = json.loads(files[-1].read_text())
    return numbers


def detection_sheet(pictures: Path, out: Path) -> None:
    """A sheet of some pictures that tools/test.py --show-dir has written."""
    files = sorted(pictures.glob('*.jpg'))[:PICTURES]
    cv2.imwrite(str(out), tile([cv2.imread(str(file)) for file in files], columns=3))


def main() -> None:
    """Write the table and the sheets."""
    parser = argparse.ArgumentParser(description='Report a quickstart run.')
    parser.add_argument('folder', type=Path)
    folder = parser.parse_args().folder
    torch.manual_seed(0)
    MMLogger.get_instance('quickstart_report', log_level='WARNING')
    plain, distilled = (tested(folder / f'{name}_test') for name in ('plain', 'distilled'))
    rows = [['', *METRICS]]
    rows += [
        [name, *(f'{numbers[key]:.3f}' for key in METRICS.values())]
        for name, numbers in (('plain', plain), ('distilled', distilled))
    ]
    rows.append(['difference', *(f'{distilled[key] - plain[key]:+.3f}' for key in METRICS.values())])
    teacher_file = folder / 'teacher' / 'model_best.pth.tar'
    top1 = load_checkpoint(teacher_file)['metrics']['top1']
    cfg = Config.fromfile(folder / 'distilled' / 'ssd_tiny_cls_loc.py')
    cv2.imwrite(str(folder / 'teacher_sees.png'), teacher_sheet(cfg))
    detection_sheet(folder / 'distilled_pictures', folder / 'detections.png')

    gain = distilled['coco/bbox_mAP'] - plain['coco/bbox_mAP']
    verdict = 'better' if gain > 0 else 'worse' if gain < 0 else 'as good'
    print('On generated photos that no training saw:')
    print(AsciiTable(rows).table)
    print(f'The teacher names {top1:.1%} of their objects rightly.')
    print(
        f'The distilled student is {verdict}: {gain:+.3f} AP. One run of each, same steps and seed; so few '
        'steps decide little.'
    )
    pictures = {
        'detections': 'detections.png',
        'what the teacher sees': 'teacher_sees.png',
        'all detections': 'distilled_pictures and plain_pictures',
        'learning curves': 'distilled/curves.png and plain/curves.png',
    }
    print(f'Pictures in {folder}:')
    for what, where in pictures.items():
        print(f'  {what + ":":<23}{where}')


if __name__ == '__main__':
    run_main(main)
