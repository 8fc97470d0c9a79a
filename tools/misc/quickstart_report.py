"""Report a quickstart run: the table, what the teacher saw, whether distillation helped.

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
from mmdet.visualization.canvas import tile, write_picture

METRICS = {'AP': 'coco/bbox_mAP', 'AP50': 'coco/bbox_mAP_50', 'AP75': 'coco/bbox_mAP_75'}
PICTURES = 12  # on the sheet of detections


def read_test(folder: Path) -> dict[str, float]:
    """Read the numbers of the newest run of tools/test.py below `folder`."""
    files = sorted(folder.glob('*/*.json'), key=lambda file: file.stat().st_mtime)
    if not files:
        raise FileNotFoundError(f'{folder} holds no result of tools/test.py; run tools/quickstart.sh again')
    numbers = json.loads(files[-1].read_text())
    return {name: numbers[key] for name, key in METRICS.items()}


def main() -> None:
    """Print the table and write the sheets."""
    parser = argparse.ArgumentParser(description='Report a quickstart run.')
    parser.add_argument('folder', type=Path)
    folder = parser.parse_args().folder
    torch.manual_seed(0)
    MMLogger.get_instance('quickstart_report', log_level='WARNING')
    plain, distilled = (read_test(folder / f'{name}_test') for name in ('plain', 'distilled'))
    gains = {name: distilled[name] - plain[name] for name in METRICS}
    top1 = load_checkpoint(folder / 'teacher' / 'model_best.pth.tar')['metrics']['top1']
    cfg = Config.fromfile(folder / 'distilled' / 'ssd_tiny_cls_loc.py')
    write_picture(folder / 'teacher_sees.png', teacher_sheet(cfg))
    files = sorted((folder / 'distilled_pictures').glob('*.jpg'))[:PICTURES]
    write_picture(folder / 'detections.png', tile([cv2.imread(str(file)) for file in files], columns=3))

    gain = gains['AP']
    verdict = 'better' if gain > 0 else 'worse' if gain < 0 else 'as good'
    rows = [['', *METRICS]]
    rows += [
        [name, *map('{:.3f}'.format, of.values())]
        for name, of in (('plain', plain), ('distilled', distilled))
    ]
    rows.append(['difference', *map('{:+.3f}'.format, gains.values())])
    print(f"""On generated photos that no training saw:
{AsciiTable(rows).table}
The teacher names {top1:.1%} of their objects rightly.
The distilled student is {verdict}: {gain:+.3f} AP. One run of each, same steps and seed; so few
steps decide little.
Pictures in {folder}:
  detections:            detections.png
  what the teacher sees: teacher_sees.png
  all detections:        distilled_pictures and plain_pictures
  learning curves:       distilled/curves.png and plain/curves.png""")


if __name__ == '__main__':
    run_main(main)
