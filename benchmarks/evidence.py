"""Train the grid of docs/results.md, unit by unit: does distillation make a compact detector better?

python -m benchmarks.evidence list                      # units whose data are there, the most important first
python -m benchmarks.evidence run neudet all 0          # one of them: leaves OUT/neudet/all_seed0.json
python -m benchmarks.evidence curve neudet              # plain, tested every six epochs: is it long enough?
python -m benchmarks.evidence table                     # what the files say; draws OUT/differences.svg

A unit is a student trained and tested once by tools/analysis/run_rows.py. The first unit that needs a
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

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock

from benchmarks.candidates import WEIGHTS
from mmdet.analysis.comparison import mean_and_spread
from mmdet.analysis.markdown import table
from mmdet.analysis.plots import plot_differences
from mmdet.analysis.runs import half_interval, read_runs
from mmdet.checkpoint.io import load_checkpoint, save_checkpoint
from mmdet.cli import make_parser, parse, run_main
from mmdet.datasets.coco_format import read_coco

STUDENT = 'configs_dev/ssdlite/ssdlite_efficientnet_lite0_small_cls_loc_stored.py'
ONLINE = 'configs_dev/ssdlite/ssdlite_efficientnet_lite0_small_cls_loc.py'
WEIGHED = 'benchmarks/configs/weighed.py'
PROPOSALS = 'benchmarks/configs/proposals.py'
TEACHER = 'configs_dev/teachers/efficientnet_lite2_small.py'
METRICS = ('AP', 'AP50', 'AP75')


class Recipe(NamedTuple):
    """Data set, input size and length of the trainings: a guess, to be set by curves of the plain row."""

    folder: str  # of the set
    side: int  # of the network input, pixels
    steps: int  # of 16 photos
    scale_anchors: bool = True  # with the side; else their pixels stay, for small objects
    share: float = 1  # of the photos for training, drawn once
    teacher_steps: int = 1000


RECIPES = {
    'neudet': Recipe('neudet', 160, 2500),
    'chess': Recipe('chess', 320, 1200, scale_anchors=False),
    'bccd': Recipe('bccd', 224, 1200),
    'fod': Recipe('fod', 192, 2500),
    'neudet25': Recipe('neudet', 160, 2500, share=0.25),
    'fod25': Recipe('fod', 192, 2500, share=0.25),
}
# name of a teacher -> classifier, file of its ImageNet weights (None: random ones), label smoothing
TEACHERS = {
    'lite2': ('timm/tf_efficientnet_lite2', 'tf_efficientnet_lite2.pth', 0.1),
    'lite0': ('timm/tf_efficientnet_lite0', 'tf_efficientnet_lite0.pth', 0.1),
    'resnet18': ('resnet18', None, 0.1),
    'unsmoothed': ('timm/tf_efficientnet_lite2', 'tf_efficientnet_lite2.pth', 0),
}


class Row(NamedTuple):
    """A row of the grid."""

    title: str  # of run_rows
    changes: Mapping[str, Any] = {}  # of the config
    teacher: str = 'lite2'
    config: str = STUDENT
    labels_only: bool = False  # in place of the teacher one that knows no more than the label
    calibrated: bool = False  # the temperature is the published one times the calibrating one
    length: float = 1  # times the steps


KD_CLS, KD_LOC = 'model.distiller.kd_cls', 'model.distiller.kd_loc'
CHEAP = {f'{KD_LOC}.crop_size': 16, f'{KD_LOC}.max_per_object': 2}
UNBALANCED = {'model.distiller.bbox_weight': 1}
DKD = {KD_CLS: {'_delete_': True, 'type': 'DKDLoss'}}
ROWS = {
    'plain': Row('plain'),
    'all': Row('all'),
    'labels': Row('all', labels_only=True),
    'unsmoothed': Row('all', teacher='unsmoothed'),
    'same_for_all': Row('all', {f'{KD_CLS}.iou_aware': False}),  # positives of an object, as published
    'longer': Row('plain', length=1.15),  # all takes at most so much longer
    'unbalanced': Row('all', UNBALANCED),
    'boxes': Row('plain', {'model.bbox_head.bbox_loss.loss_weight': 1.5}),
    'cls': Row('cls'),
    'loc': Row('loc_kdloc'),
    'online': Row('all', CHEAP | UNBALANCED, config=ONLINE),
    'full': Row('all', dict.fromkeys(CHEAP) | UNBALANCED),
    'online_full': Row('all', UNBALANCED, config=ONLINE),
    **{name: Row('loc_kdloc', {'model.distiller.weigh': name}, config=WEIGHED) for name in WEIGHTS},
    'proposals': Row('all', config=PROPOSALS),
    **{f'kd_{name}': Row('cls', teacher=name) for name in TEACHERS},
    **{f'calibrated_{name}': Row('cls', teacher=name, calibrated=True) for name in TEACHERS},
    **{f'dkd_{name}': Row('cls', DKD, name) for name in TEACHERS},
}


def grid() -> list[tuple[str, str, int]]:
    """List data set, row and seed of every unit, the most important first."""
    four = ('neudet', 'chess', 'bccd', 'fod')
    blocks: list[tuple[Sequence[str], Sequence[str], int]] = [
        (four, ('plain', 'cls', 'all'), 5),
        (four[:2], ('labels', 'longer'), 3),
        (('fod25', 'neudet25'), ('plain', 'cls', 'all'), 3),
        (('neudet',), ('loc',), 5),
        (('fod', 'neudet'), ('unbalanced', 'boxes', 'online', 'full', 'online_full'), 3),
        (('chess',), [f'{loss}_{name}' for name in TEACHERS for loss in ('kd', 'calibrated', 'dkd')], 2),
        (four[:2], [*WEIGHTS, 'unsmoothed', 'same_for_all', 'proposals'], 3),
    ]
    return [
        (name, row, seed)
        for names, rows, seeds in blocks
        for seed in range(seeds)
        for row in rows
        for name in names
    ]


class Unit:
    """The commands of one row on one data set.

    Args:
        name: Key of `RECIPES`.
        recipe: Of it.
        row: Key of `ROWS`.
        data: Folder of the sets.
        weights: Folder of the ImageNet weights.
        out: Folder of all results.
    """

    def __init__(self, name: str, recipe: Recipe, row: str, data: Path, weights: Path, out: Path) -> None:
        self.recipe = recipe
        self.row = ROWS[row]
        self.data = data / recipe.folder
        self.weights = weights
        self.folder = folder_of(out / name, row)
        self.of_set = out / name
        self.photos = self.of_set / 'photos'  # apart from the results
        self.of_teacher = self.of_set / f'teacher_{self.row.teacher}'
        self.teacher = self.of_teacher / 'model_best.pth.tar'

    def options(self) -> dict[str, Any]:
        """Collect the config keys that all trainings on the set share."""
        names: dict[str, Any] = {
            f'{split}_{kind}': value
            for split in ('train', 'val')
            for kind, value in (('ann', f'annotations/instances_{split}.json'), ('img', f'{split}/'))
        }
        if self.recipe.share < 1:
            names['train_ann'] = self.photos.resolve() / 'train.json'
        return {**names, 'input_size': self.recipe.side}

    def student_options(self) -> dict[str, Any]:
        """Collect those of the student."""
        options = {
            **self.options(),
            'iters': round(self.recipe.steps * self.row.length),
            'model.backbone.weights': self.weights / 'tf_efficientnet_lite0.pth',
            **self.row.changes,
        }
        if not self.recipe.scale_anchors:  # their sizes are made for this input
            options['model.bbox_head.anchor_generator.input_size'] = [self.recipe.side] * 2
        return options

    def teacher_options(self) -> dict[str, Any]:
        """Collect those of its teacher."""
        stored = self.row.config not in (ONLINE, PROPOSALS)
        network = 'model.distiller.teacher' + '.network' * stored
        options = {f'{network}.checkpoint': self.teacher, f'{network}.arch': TEACHERS[self.row.teacher][0]}
        if stored:
            name = 'labels' if self.row.labels_only else 'answers'
            options['model.distiller.teacher.file'] = self.of_teacher / f'{name}.pth'
        if self.row.calibrated:
            options[f'{KD_CLS}.temperature'] = self.temperature()
        return options

    def run(self, seed: int) -> None:
        """Train and test with one seed."""
        self.prepare_photos()
        if self.row.title != 'plain':
            self.prepare_teacher()
        options = self.student_options() | self.teacher_options()  # the same of plain: see compare.py
        what = ['--rows', self.row.title, '--seeds', str(seed), '--out-dir', str(self.folder)]
        self.call('tools/analysis/run_rows.py', self.row.config, options, *what)

    def curve(self) -> None:
        """Train and test the plain student after every sixth epoch; its log holds the curve."""
        self.prepare_photos()
        work_dir = ['--work-dir', str(self.of_set / 'curve')]
        self.call('tools/train.py', STUDENT, {**self.student_options(), 'row': 'plain'}, *work_dir)

    def prepare_photos(self) -> None:
        """Draw the photos of a smaller training set."""
        self.of_set.mkdir(parents=True, exist_ok=True)
        with FileLock(self.of_set / 'photos.lock'):
            if self.recipe.share < 1 and not (self.photos / 'val.json').exists():  # the last to be written
                whole, rest = self.data / 'annotations/instances_train.json', str(1 - self.recipe.share)
                command = [sys.executable, 'tools/misc/split_coco.py', str(whole), str(self.photos)]
                subprocess.run([*command, '--val', rest], check=True)

    def prepare_teacher(self) -> None:
        """Train the teacher and store its answers, and those of one that knows the label alone."""
        self.of_teacher.mkdir(parents=True, exist_ok=True)
        arch, weights, smoothing = TEACHERS[self.row.teacher]
        answers, labels = self.of_teacher / 'answers.pth', self.of_teacher / 'labels.pth'
        with FileLock(self.of_teacher / 'lock'):  # the first unit that needs it makes it
            if not answers.exists():
                options = self.options() | {'iters': self.recipe.teacher_steps, 'model.arch': arch}
                options['model.label_smoothing'] = smoothing
                options['model.weights'] = weights and self.weights / weights
                options['default_hooks.save_teacher.file'] = self.teacher
                resume = ['--resume'] * (self.of_teacher / 'latest.pth').exists()
                work_dir = ['--work-dir', str(self.of_teacher)]
                self.call('tools/train.py', TEACHER, options, *work_dir, *resume)
                stored = ['--teacher', str(self.teacher), '--out', str(answers)]
                asked = self.options() | {'model.distiller.teacher.arch': arch, KD_LOC: None}
                told = ['--teacher', str(self.teacher), '--out-dir', str(self.of_teacher / 'report')]
                self.call('tools/analysis/teacher_report.py', ONLINE, asked, *told)
                self.call('tools/store_teacher.py', ONLINE, asked, *stored)
            if not labels.exists():
                store_labels(answers, self.data / 'annotations/instances_train.json', labels)

    def temperature(self) -> float:
        """Read the temperature that the teacher report suggests."""
        numbers = json.loads((self.of_teacher / 'report/report.json').read_text())
        return float(numbers['suggested_temperature'])

    def call(self, tool: str, config: str, options: Mapping[str, Any], *arguments: str) -> None:
        """Run a tool on the set."""
        pairs = [f'{key}={value}' for key, value in options.items()]
        command = [sys.executable, tool, config, '--data-root', str(self.data), *arguments]
        subprocess.run([*command, '--cfg-options', *pairs], check=True)


def store_labels(answers: Path, annotations: Path, out: Path) -> None:
    """Store the answers of a teacher that knows no more than the label, as certain as the real one.

    Args:
        answers: Stored answers of the teacher, whose objects and classes are taken over.
        annotations: Of the same training set.
        out: File to write.
    """
    content, known = load_checkpoint(answers), read_coco(annotations)
    tensors, classes = content['state_dict'], len(known.category_ids)
    order = known.ann_ids.argsort()
    rows = order[np.searchsorted(known.ann_ids, tensors['ann_ids'], sorter=order)]
    certain = tensors['answers'].float().softmax(1).amax(1).mean().clamp(max=0.9999)  # in the mean
    labels = F.one_hot(torch.from_numpy(known.category_rows[rows]), classes)
    shares = labels * certain + (1 - labels) * (1 - certain) / max(classes - 1, 1)
    save_checkpoint({**content, 'state_dict': {**tensors, 'answers': shares.log().half()}}, out)


def folder_of(out: Path, row: str) -> Path:
    """Choose the folder of a row's files in that of a set; compare.py finds plain and all in one."""
    return out if row in ('plain', 'all') else out / row


def report(out: Path, base: str = 'plain') -> str:
    """Lay out AP of every row and its paired differences to another, with Student's 95 % intervals.

    Draws those of `cls` and `all` to `plain`, for each set, into OUT/differences.svg.
    """
    lines = []
    for name in RECIPES:
        for row in ROWS:
            found, pairs = scores(out / name, row), differences(out / name, row, base)
            cells = [mean_and_spread([each[key] for each in found.values()]) for key in METRICS]
            cells += [interval(pairs[key], '+.1f') if row != base else '' for key in METRICS[:2]]
            if found:
                lines.append((name, row, str(len(found)), *cells))
    drawn = {
        f'{name} {row}': differences(out / name, row, 'plain') for name in RECIPES for row in ('cls', 'all')
    }
    shown = {key: {name: pairs[key] for name, pairs in drawn.items() if pairs[key]} for key in METRICS}
    if shown['AP']:
        plot_differences(shown, 'points, minus plain', out / 'differences.svg')
    heads = ('set', 'row', 'seeds', *METRICS, *(f'{key}, minus {base}' for key in METRICS[:2]))
    return table(heads, lines, '---:')


def differences(of_set: Path, row: str, base: str) -> dict[str, list[float]]:
    """Subtract the metrics of one row from those of another, seed by seed."""
    ours, theirs = scores(of_set, row), scores(of_set, base)
    return {key: [ours[seed][key] - theirs[seed][key] for seed in ours if seed in theirs] for key in METRICS}


def scores(of_set: Path, row: str) -> dict[int, dict[str, float]]:
    """Read the metrics of a row, percent, by seed."""
    folder, title = folder_of(of_set, row), ROWS[row].title
    runs = [run.values for run in read_runs([folder])] if any(folder.glob('*.json')) else []
    return {
        run['seed']: {key: 100 * run[f'metrics.{key}'] for key in METRICS}
        for run in runs
        if run['row'] == title
    }


def interval(values: Sequence[float], form: str) -> str:
    """Format the mean with Student's 95 % interval."""
    if len(values) < 2:
        return mean_and_spread(values, form)
    return f'{fmean(values):{form}} ± {half_interval(values):.1f}'


def main(argv: Sequence[str] | None = None) -> None:
    """List the units, run one, or print what has come out."""
    parser = make_parser(__doc__)
    parser.add_argument('what', choices=('list', 'run', 'curve', 'table'))
    parser.add_argument('unit', nargs='*', metavar='SET ROW SEED', help='with run; SET with curve')
    parser.add_argument('--data', type=Path, help='folder of the sets; default: $DISTILL_DATA')
    parser.add_argument('--weights', type=Path, help='of ImageNet; default: the folder weights of --data')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/evidence'))
    parser.add_argument('--minus', choices=ROWS, default='plain', help='row that table subtracts')
    for field in ('side', 'steps', 'teacher_steps'):
        option = f'--{field.replace("_", "-")}'
        parser.add_argument(option, type=int, help='instead of the recipe, for a CPU; give another --out')
    args = parse(parser, argv)
    data = args.data or Path(os.environ.get('DISTILL_DATA', ''))
    if args.what == 'list':
        for name, row, seed in grid():
            if (data / RECIPES[name].folder).is_dir():
                print(name, row, seed)
        return
    if args.what == 'table':
        print(report(args.out, args.minus))
        return
    name, row, seed = (*args.unit, 'plain', '0')[:3]
    given = {key: getattr(args, key) for key in Recipe._fields if getattr(args, key, None)}
    weights = args.weights or data / 'weights'
    unit = Unit(name, RECIPES[name]._replace(**given), row, data, weights, args.out)
    if args.what == 'curve':
        unit.curve()
    else:
        unit.run(int(seed))


if __name__ == '__main__':
    run_main(main)
