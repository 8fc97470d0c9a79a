"""How good a teacher is on the crops that the distiller cuts, and how much of its certainty is deserved.

Writes report.md, reliability.png and report.json.

python tools/analysis/teacher_report.py configs_dev/ssd/ssd300_coco_cls_loc.py --data-root data/coco2017
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor

from mmdet.analysis.calibration import (
    BINS,
    NEAR_ONE_HOT,
    Calibration,
    advice,
    class_counts,
    correct,
    measure,
    reliability,
    size_of,
)
from mmdet.analysis.markdown import table
from mmdet.analysis.reliability import plot_reliability
from mmdet.analysis.teacher import answers_of_split, build_distiller, load_distilled_config
from mmdet.cli import add_config_arguments, parse

SIZES = ('small, area below 32²', 'medium', 'large, area from 96²')


def share(part: float, whole: float) -> str:
    """A quotient in percent; a dash where there is nothing to divide by."""
    return f'{100 * part / whole:.1f} %' if whole else '-'


def number_table(numbers: Calibration, classes: int) -> str:
    """The numbers of the whole set."""
    most = torch.tensor(float(classes)).log()
    rows = [
        ('crops', numbers.crops),
        ('top-1', share(numbers.top1, 1)),
        ('top-5', share(numbers.top5, 1)),
        ('mean confidence', share(numbers.confidence, 1)),
        ('expected calibration error', f'{numbers.error:.3f}'),
        ('mean entropy, nats', f'{numbers.entropy:.3f} (at most {most:.3f})'),
        (f'near-one-hot answers, confidence above {NEAR_ONE_HOT}', share(numbers.near_one_hot, 1)),
        ('negative log-likelihood, nats', f'{numbers.loss:.3f}'),
        ('calibrating temperature', f'{numbers.temperature:.2f}'),
        ('calibration error at that temperature', f'{numbers.calibrated_error:.3f}'),
        ('negative log-likelihood at that temperature', f'{numbers.calibrated_loss:.3f}'),
    ]
    return table(('', 'value'), rows)


def size_table(logits: Tensor, labels: Tensor, areas: Tensor) -> str:
    """Accuracy and confidence by the size of the object."""
    top1, top5 = correct(logits, labels)
    confidence, sizes = logits.softmax(1).amax(1), size_of(areas)
    rows = []
    for size, name in enumerate(SIZES):
        chosen = sizes == size
        count = int(chosen.sum())
        sums = (float(values[chosen].sum()) for values in (top1, top5, confidence))
        rows.append((name, count, *(share(value, count) for value in sums)))
    return table(('object', 'crops', 'top-1', 'top-5', 'mean confidence'), rows)


def class_table(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> str:
    """Accuracy by class, and what it is taken for."""
    rows = []
    columns = (values.tolist() for values in class_counts(logits, labels))
    for name, crops, top1, top5, other in zip(classes, *columns, strict=True):
        rows.append(
            (name, crops, share(top1, crops), share(top5, crops), classes[other] if other >= 0 else '-')
        )
    return table(('class', 'crops', 'top-1', 'top-5', 'most often mistaken for'), rows)


def report(cfg: Config, args: argparse.Namespace, out_dir: Path) -> str:
    """Measure, write the picture and the numbers; returns the Markdown text."""
    distiller, preprocessor = build_distiller(cfg, get_device())
    logits, labels, areas = answers_of_split(cfg, args.split, distiller, preprocessor)
    classes = cfg[f'{args.split}_dataloader'].dataset.metainfo['classes']
    numbers = measure(logits, labels)
    calibrated = logits.double() / numbers.temperature
    panels = {
        'as it answers': reliability(logits.softmax(1), labels),
        f'at temperature {numbers.temperature:.2f}': reliability(calibrated.softmax(1), labels),
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    plot_reliability(panels, out_dir / 'reliability.png')
    (out_dir / 'report.json').write_text(json.dumps(numbers._asdict(), indent=2) + '\n')
    commonest = labels.bincount().max().item() / len(labels)
    kd_cls = cfg.model.distiller.get('kd_cls') or {}
    verdict = advice(numbers, commonest, kd_cls.get('temperature'), on_training_crops=args.split == 'train')
    teacher = cfg.model.distiller.teacher
    seen = 'augmented training' if args.split == 'train' else 'evaluation'
    sizes = 'Not given for augmented images: what is cut out and enlarged has no size in the original.'
    if args.split == 'val':
        sizes = (
            'By the area of the box in pixels of the original image (COCO counts the area of the mask where '
            f'there is one).\n\n{size_table(logits, labels, areas)}'
        )
    return f"""# Teacher report

`{teacher.checkpoint}`, {teacher.arch}, on the crops of side {distiller.crop_size} that the
distiller of `{args.config}` cuts out of its {seen} batches ({cfg.data_root}).

    {shlex.join(['python', 'tools/analysis/teacher_report.py', *args.typed])}

torch {torch.__version__} on {get_device()}

## Verdict

{chr(10).join(f'- {sentence}' for sentence in verdict)}

## Numbers

{number_table(numbers, len(classes))}

![reliability diagram](reliability.png)

Confidence is the largest of the softmax probabilities. The expected calibration error sorts all answers
by confidence into {BINS} bins of equal width and averages |share of right answers - mean confidence| over
the bins, each weighted by its number of answers. The calibrating temperature T is the one that minimizes
the mean negative log-likelihood of softmax(logits / T) on these very crops, so the errors at T are a little
too good. A T above 1 means over-confident, below 1 under-confident.

## By size

{sizes}

## By class

{class_table(logits, labels, classes)}
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Write the report and say where it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_arguments(parser)
    parser.add_argument('--teacher', help='file of another teacher than the config names')
    parser.add_argument('--split', choices=['train', 'val'], default='val')
    parser.add_argument(
        '--out-dir', type=Path, help='default: work_dirs/<config name>/teacher_report_<split>'
    )
    args = parse(parser, argv)
    args.typed = list(sys.argv[1:] if argv is None else argv)
    cfg = load_distilled_config(args.config, args.teacher, args.cfg_options, args.data_root, args.split)
    out_dir = args.out_dir or Path('work_dirs', Path(args.config).stem, f'teacher_report_{args.split}')
    text = report(cfg, args, out_dir)
    (out_dir / 'report.md').write_text(text)
    print(text.partition('## Verdict\n\n')[2].partition('\n\n![')[0])
    print(f'\nwhole report: {out_dir / "report.md"}')
