"""Train the grid of docs/results.md, unit by unit: does distillation make a compact detector better?

python -m benchmarks.evidence list                      # units whose data are there, the most important first
python -m benchmarks.evidence run neudet all 0          # one of them: leaves OUT/neudet/all_seed0.json
python -m benchmarks.evidence table                     # what the files that are there say

A unit is a student trained and tested once by tools/analysis/run_rows.py. The first unit that needs the
teacher trains it and stores its answers. A unit whose file is there is not run again, one that was stopped
goes on. benchmarks/evidence_on_gpu.sh runs several at a time.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from filelock import FileLock

from mmdet.analysis.comparison import mean_and_spread
from mmdet.analysis.markdown import table
from mmdet.analysis.runs import half_interval, read_runs
from mmdet.checkpoint.io import load_checkpoint, save_checkpoint
from mmdet.cli import make_parser, run_main

STUDENT = 'configs_dev/ssdlite/ssdlite_efficientnet_lite0_small_cls_loc_stored.py'
TEACHER = 'configs_dev/teachers/efficientnet_lite2_small.py'
ASKED = 'configs_dev/ssdlite/ssdlite_efficientnet_lite0_small_cls_loc.py'
METRICS = ('AP', 'AP50', 'AP75')
SMOOTHING = 0.1  # the teacher is trained with it, too


class Recipe(NamedTuple):
    """Input size and length of the trainings on a data set: a guess, to be set by curves of the plain row."""

    side: int  # of the network input, pixels
    steps: int  # of 16 photos
    scale_anchors: bool = True  # with the side; else their pixels stay, for small objects
    teacher_steps: int = 1000


RECIPES = {
    'neudet': Recipe(160, 2500),
    'chess': Recipe(320, 1200, scale_anchors=False),
    'bccd': Recipe(224, 1200),
    'fod': Recipe(192, 2500),
}
# Row of the grid -> row of run_rows, what it changes
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    'plain': ('plain', {}),
    'all': ('all', {}),
    'cls': ('cls', {}),
    'loc': ('loc_kdloc', {}),
    'smooth': ('cls', {}),  # a teacher that knows the label alone
    'strong': ('cls', {'model.distiller.kd_cls.loss_weight': 1.6}),
}


def grid() -> list[tuple[str, str, int]]:
    """List data set, row and seed of every unit, the most important first."""
    sets = ('neudet', 'chess', 'bccd', 'fod')
    units = [(name, row, seed) for seed in range(5) for row in ('plain', 'all') for name in sets]
    units += [('neudet', 'cls', seed) for seed in range(5)]
    controls = ('smooth', 'strong')
    return units + [(name, row, seed) for seed in range(3) for row in controls for name in sets[:2]]


class Unit:
    """The commands of one data set.

    Args:
        name: Folder of the set in `data`.
        recipe: Of it.
        data: Folder of the sets.
        weights: Folder of the ImageNet weights.
        out: Folder of all results.
    """

    def __init__(self, name: str, recipe: Recipe, data: Path, weights: Path, out: Path) -> None:
        self.recipe = recipe
        self.data = data / name
        self.weights = weights
        self.folder = out / name
        self.teacher = self.folder / 'teacher' / 'model_best.pth.tar'

    def options(self) -> dict[str, Any]:
        """Collect the config keys that all trainings on the set share."""
        names = {
            f'{split}_{kind}': value
            for split in ('train', 'val')
            for kind, value in (('ann', f'annotations/instances_{split}.json'), ('img', f'{split}/'))
        }
        return {**names, 'input_size': self.recipe.side}

    def run(self, row: str, seed: int) -> None:
        """Train and test one row with one seed."""
        title, changes = ROWS[row]
        options = {
            **self.options(),
            'iters': self.recipe.steps,
            'model.backbone.weights': self.weights / 'tf_efficientnet_lite0.pth',
            'model.distiller.teacher.file': self.folder / f'{"smooth" if row == "smooth" else "answers"}.pth',
            'model.distiller.teacher.network.checkpoint': self.teacher,
            **changes,
        }
        if not self.recipe.scale_anchors:  # their sizes are made for this input
            options['model.bbox_head.anchor_generator.input_size'] = [self.recipe.side] * 2
        if title != 'plain':
            self.prepare_teacher()
        out_dir = self.folder if row in ('plain', 'all') else self.folder / row
        what = ['--rows', title, '--seeds', str(seed), '--out-dir', str(out_dir)]
        self.call('tools/analysis/run_rows.py', STUDENT, options, *what)

    def prepare_teacher(self) -> None:
        """Train the teacher and store its answers, and those of one that knows the label alone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        answers, smooth = self.folder / 'answers.pth', self.folder / 'smooth.pth'
        with FileLock(self.folder / 'teacher.lock'):  # the first unit that needs it makes it
            if not answers.exists():
                options = self.options() | {'iters': self.recipe.teacher_steps}
                options['model.weights'] = self.weights / 'tf_efficientnet_lite2.pth'
                options['default_hooks.save_teacher.file'] = self.teacher
                resume = ['--resume'] * (self.folder / 'teacher' / 'latest.pth').exists()
                work_dir = ['--work-dir', str(self.folder / 'teacher')]
                self.call('tools/train.py', TEACHER, options, *work_dir, *resume)
                stored = ['--teacher', str(self.teacher), '--out', str(answers)]
                self.call('tools/store_teacher.py', ASKED, self.options(), *stored)
            if not smooth.exists():
                store_labels(answers, self.data / 'annotations' / 'instances_train.json', smooth)

    def call(self, tool: str, config: str, options: Mapping[str, Any], *arguments: str) -> None:
        """Run a tool on the set."""
        pairs = [f'{key}={value}' for key, value in options.items()]
        command = [sys.executable, tool, config, '--data-root', str(self.data), *arguments]
        subprocess.run([*command, '--cfg-options', *pairs], check=True)


def store_labels(answers: Path, annotations: Path, out: Path) -> None:
    """Store the answers of a teacher that knows no more than the label: one-hot, smoothed.

    Args:
        answers: Stored answers of the teacher, whose objects and classes are taken over.
        annotations: Of the same training set.
        out: File to write.
    """
    content = load_checkpoint(answers)
    coco = json.loads(annotations.read_bytes())
    category_ids = sorted(category['id'] for category in coco['categories'])
    labels = {each['id']: category_ids.index(each['category_id']) for each in coco['annotations']}
    tensors = content['state_dict']
    own = torch.tensor([labels[ann_id] for ann_id in tensors['ann_ids'].tolist()])
    classes = len(category_ids)
    shares = torch.full((len(own), classes), SMOOTHING / classes)
    shares[torch.arange(len(own)), own] += 1 - SMOOTHING
    save_checkpoint({**content, 'state_dict': {**tensors, 'answers': shares.log().half()}}, out)


def report(out: Path) -> str:
    """Lay out AP of every row and its paired differences to plain, with Student's 95 % intervals."""
    lines = []
    for name in RECIPES:
        plain = scores(out / name, 'plain')
        for row, (title, _) in ROWS.items():
            found = scores(out / name if row in ('plain', 'all') else out / name / row, title)
            pairs = {key: [found[s][key] - plain[s][key] for s in found if s in plain] for key in METRICS}
            cells = [mean_and_spread([each[key] for each in found.values()]) for key in METRICS]
            cells += [interval(pairs[key], '+.1f') if row != 'plain' else '' for key in METRICS[:2]]
            if found:
                lines.append((name, row, str(len(found)), *cells))
    heads = ('set', 'row', 'seeds', *METRICS, *(f'{key}, minus plain' for key in METRICS[:2]))
    return table(heads, lines, '---:')


def scores(folder: Path, row: str) -> dict[int, dict[str, float]]:
    """Read the metrics of a row, percent, by seed."""
    runs = [run.values for run in read_runs([folder])] if any(folder.glob('*.json')) else []
    return {
        run['seed']: {key: 100 * run[f'metrics.{key}'] for key in METRICS}
        for run in runs
        if run['row'] == row
    }


def interval(values: Sequence[float], form: str) -> str:
    """Format the mean with Student's 95 % interval."""
    if len(values) < 2:
        return mean_and_spread(values, form)
    return f'{fmean(values):{form}} ± {half_interval(values):.1f}'


def main(argv: Sequence[str] | None = None) -> None:
    """List the units, run one, or print what has come out."""
    parser = make_parser(__doc__)
    parser.add_argument('what', choices=('list', 'run', 'table'))
    parser.add_argument('unit', nargs='*', metavar='SET ROW SEED', help='with run')
    parser.add_argument('--data', type=Path, help='folder of the sets; default: $DISTILL_DATA')
    parser.add_argument('--weights', type=Path, help='of ImageNet; default: the folder weights of --data')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/evidence'))
    for field in ('side', 'steps', 'teacher_steps'):
        option = f'--{field.replace("_", "-")}'
        parser.add_argument(option, type=int, help='instead of the recipe, for a CPU; give another --out')
    args = parser.parse_args(argv)
    data = args.data or Path(os.environ.get('DISTILL_DATA', ''))
    if args.what == 'list':
        for name, row, seed in grid():
            if (data / name).is_dir():
                print(name, row, seed)
    elif args.what == 'table':
        print(report(args.out))
    else:
        name, row, seed = args.unit
        given = {key: getattr(args, key) for key in Recipe._fields if getattr(args, key, None)}
        recipe = RECIPES[name]._replace(**given)
        Unit(name, recipe, data, args.weights or data / 'weights', args.out).run(row, int(seed))


if __name__ == '__main__':
    run_main(main)
