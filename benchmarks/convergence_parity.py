"""Compare trainings in float32, in bfloat16, compiled and by the baseline: they must end at the same AP.

python -m benchmarks.convergence_parity --work-dir work_dirs/same

A narrow SSD300 is distilled on generated photos: by this toolbox in float32, in bfloat16 and compiled, and
the baseline (benchmarks/reference) with random numbers of its own. Only the training differs: the teacher,
the start, the schedule and the evaluation are the same. A training whose result lies in the work dir is not
run again, so two processes can share the work, each with other --ways or --seeds.

Exit status 1 where a way ends elsewhere than float32, by the rule of `benchmarks.parity.compare`.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torchvision
from mmengine.config import Config
from torch import nn
from torch._dynamo.utils import counters

from benchmarks.bfloat16 import quick_bfloat16
from benchmarks.parity import compare
from benchmarks.reference.augmentation import PIPELINE
from benchmarks.reference.network import BaselineSSD300
from benchmarks.reference.training import train
from benchmarks.report import ROOT, machine, write_csv
from benchmarks.settings import Settings
from benchmarks.students import CONFIG, DISTILLED_CONFIG, anchors_of, narrowed
from mmdet.analysis.comparison import mean_and_spread
from mmdet.analysis.markdown import table
from mmdet.analysis.runs import load_or_run
from mmdet.checkpoint.io import load_checkpoint, load_weights, save_checkpoint
from mmdet.cli import make_parser, run_main
from mmdet.config.resolve import load_config
from mmdet.engine import DetRunner
from mmdet.registry import DATASETS, MODELS
from mmdet.synthetic.dataset import make_dataset

TEACHER_CONFIG = ROOT / 'configs_dev' / 'teachers' / 'resnet50_ssd.py'
RESULTS = ROOT / 'benchmarks' / 'results' / 'convergence_parity.csv'
WAYS = ('float32', 'bfloat16', 'compiled', 'baseline')  # the first is what the others are compared with
ARCH, CROP_SIZE, MAX_NORM, DECAY = 'resnet18', 32, 10.0, 0.01


SIZES: dict[str, Any] = {
    'images': (600, 100),  # of the training and of the validation split
    'side': 192,  # longer side of a photo, in pixels
    'width': 1 / 8,  # factor on SSD300's channels
    'batch_size': 4,
    'teacher_steps': 100,  # of batches four times as large: it sees crops only
    'start_steps': 1000,  # half of them on whole photos
    'steps': 150,  # of each way
    'lr': 1e-3,  # of each way
}
QUICK = dict(zip(SIZES, ((6, 3), 96, 1 / 32, 2, 1, 2, 2, 1e-3), strict=True))


class Work(NamedTuple):
    """The folder of all trainings, and how large they are."""

    folder: Path
    sizes: dict[str, Any]  # as SIZES

    def config(self, file: Path, name: str, steps: int, lr: float, options: Mapping[str, Any]) -> Config:
        """Make a config on the generated photos, with the schedule that all trainings have."""
        loaders = {f'{split}_dataloader.num_workers': 0 for split in ('train', 'val', 'test')}
        loaders |= {
            'train_dataloader.batch_size': self.sizes['batch_size'],
            'train_dataloader.sampler.times': 1,
        }
        cfg = load_config(file, {**loaders, **options}, self.folder / 'data')
        cfg.work_dir, cfg.log_level = str(self.folder / 'runs' / name), 'WARNING'
        cfg.experiment_name = f'{name}_{time.time_ns()}'  # MMEngine names logs by the second
        cfg.train_cfg = {'type': 'TrainLoop', 'max_iters': steps}
        cfg.optim_wrapper = {
            'type': 'OptimWrapper',
            'optimizer': {'type': 'AdamW', 'lr': lr, 'weight_decay': DECAY},
            'clip_grad': {'max_norm': MAX_NORM},
        }
        cfg.param_scheduler = [{'type': 'MultiStepLR', 'by_epoch': False, 'milestones': milestones(steps)}]
        cfg.default_hooks.checkpoint = {'type': 'CheckpointHook', 'interval': -1}
        return cfg

    def student(self, name: str, steps: int, lr: float, distilled: bool = False) -> Config:
        """Make the config of the narrow student, with batch norms; its training is not evaluated."""
        options: dict[str, Any] = narrowed(self.sizes['width'])
        options |= {'model.backbone.batch_norm': True, 'model.neck.batch_norm': True}
        if distilled:
            options |= {
                'model.distiller.crop_size': CROP_SIZE,
                'model.distiller.teacher.arch': ARCH,
                'model.distiller.teacher.checkpoint': str(self.folder / 'teacher.pth'),
            }
        cfg = self.config(DISTILLED_CONFIG if distilled else CONFIG, name, steps, lr, options)
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        return cfg

    def prepare(self) -> None:
        """Draw the photos, train the teacher and the common start, as far as they are not there."""
        photos, held_out = self.sizes['images']
        make_dataset(self.folder / 'data', photos, held_out, size=self.sizes['side'])
        teacher, start = self.folder / 'teacher.pth', self.folder / 'start.pth'
        if not teacher.exists():
            options = {'model.arch': ARCH, 'model.crop_size': CROP_SIZE}
            cfg = self.config(TEACHER_CONFIG, 'teacher', self.sizes['teacher_steps'], 2e-3, options)
            cfg.train_dataloader.batch_size *= 4
            cfg.default_hooks.save_teacher.file = str(teacher)
            DetRunner.from_cfg(cfg).train()
        if not start.exists():
            whole_photos = [PIPELINE[i] for i in (0, 1, 4, 5, 7)]  # neither expanded nor cut: learns sooner
            for steps, pipeline in (
                (self.sizes['start_steps'] // 2, whole_photos),
                (self.sizes['start_steps'], PIPELINE),
            ):
                cfg = self.student('start', steps, 2e-3)
                cfg.param_scheduler = None  # so that what the ways gain shows: their rate falls
                cfg.resume = True  # after the first half, or where it was stopped
                cfg.train_dataloader.dataset.pipeline = pipeline
                runner = DetRunner.from_cfg(cfg)
                runner.train()
            save_checkpoint({'state_dict': runner.model.state_dict()}, start)

    def train(self, way: str, seed: int) -> nn.Module:
        """Train one way with one seed; returns the student."""
        cfg = self.student(f'{way}_seed{seed}', self.sizes['steps'], self.sizes['lr'], distilled=True)
        cfg.load_from, cfg.randomness = str(self.folder / 'start.pth'), {'seed': seed}
        if way == 'baseline':
            return self.train_baseline(cfg, seed)
        if way == 'bfloat16':
            cfg.optim_wrapper |= {'type': 'AmpOptimWrapper', 'dtype': 'bfloat16'}
        if way == 'compiled':
            cfg.compile = {'mode': 'default'}
        torch._dynamo.reset()  # or a training would run what an earlier one has compiled
        counters.clear()
        runner = DetRunner.from_cfg(cfg)
        with quick_bfloat16() if way == 'bfloat16' else contextlib.nullcontext():
            runner.train()  # under a dispatch mode nothing would be compiled
        if way == 'compiled' and not counters['stats']['unique_graphs']:
            raise RuntimeError('this machine compiles nothing: leave "compiled" out of --ways')
        return runner.model

    def train_baseline(self, cfg: Config, seed: int) -> nn.Module:
        """Train the baseline by the same schedule, on a random stream that ours never draws from."""
        detector = MODELS.build({**cfg.model, 'distiller': None})
        load_weights(detector, load_checkpoint(cfg.load_from)['state_dict'], cfg.load_from)
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        photos = [dataset._results(row, row) for row in range(len(dataset))]
        student = BaselineSSD300(len(dataset.metainfo['classes']), self.sizes['width'], batch_norm=True)
        student.take_weights(detector)
        teacher = torchvision.models.get_model(ARCH, weights=None, num_classes=student.num_classes)
        teacher.load_state_dict(load_checkpoint(self.folder / 'teacher.pth')['state_dict'])
        teacher.eval().requires_grad_(requires_grad=False)
        optimizer = torch.optim.AdamW(student.parameters(), self.sizes['lr'], weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones(self.sizes['steps']))
        train(
            student, teacher, CROP_SIZE, anchors_of(detector, torch.device('cpu')),
            [(photo['img_path'], *photo['annotations'][:2]) for photo in photos],
            self.sizes['batch_size'], self.sizes['steps'], optimizer, schedule, MAX_NORM,
            np.random.default_rng([seed, 1]),
        )  # fmt: skip
        student.give_weights(detector)
        return detector

    def run(self, way: str, seed: int) -> dict[str, Any]:
        """Train and evaluate one way with one seed, or read its result; way 'start' trains nothing.

        Returns:
            AP and AP50 on the validation split, in float32, not compiled; the seconds of the training with
            all set-up, compilation included; the sizes and the machine.
        """

        def measure() -> dict[str, Any]:
            begun = time.perf_counter()
            if way == 'start':
                weights = load_checkpoint(self.folder / 'start.pth')['state_dict']
            else:
                weights = self.train(way, seed).state_dict()
            seconds = time.perf_counter() - begun
            runner = DetRunner.from_cfg(self.student('test', 1, self.sizes['lr']))
            load_weights(runner.model, weights, 'the weights of a training')
            found = runner.test()
            about = machine(Settings(threads=torch.get_num_threads(), quick=self.sizes == QUICK))
            scores = {'AP': found['coco/bbox_mAP'], 'AP50': found['coco/bbox_mAP_50']}
            return {**scores, 'seconds': seconds, **about}

        settings = {'way': way, 'seed': seed, **self.sizes}
        found = load_or_run(self.folder / f'{way}_seed{seed}.json', settings, measure)
        print(f'{way}, seed {seed}: AP {found["AP"]:.4f}, {found["seconds"]:.0f} s', flush=True)
        return found


def milestones(steps: int) -> list[int]:
    """Place the steps at which the learning rate falls to a tenth: after 2/3 and 8/9 of them."""
    return [steps * 2 // 3, steps * 8 // 9]


def report(runs: Sequence[Mapping[str, Any]]) -> bool:
    """Print all results; returns whether every way ends where float32 does."""
    aps = {name: [run['AP'] for run in runs if run['way'] == name] for name in ('start', *WAYS)}
    found = {way: compare(aps[WAYS[0]], aps[way]) for way in WAYS[1:] if aps[way]}
    lines = []
    for way, of_seeds in aps.items():
        difference, allowed, verdict = found.get(way, (0, 0, ''))
        seeds, mean = ' '.join(f'{ap:.4f}' for ap in of_seeds), mean_and_spread(of_seeds, '.4f')
        lines.append((way, seeds, mean, f'{difference:+.4f}', f'{allowed:.4f}', verdict))
    print(table(('way', 'AP of each seed', 'mean AP', 'difference', 'allowed', ''), lines))
    learned: bool = min(aps[WAYS[0]]) > aps['start'][0]
    if not learned:
        print(f'{WAYS[0]} is not better than its start: the comparison says nothing')
    return learned and all(comparison.verdict == 'same' for comparison in found.values())


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, compare, print, write.

    Raises:
        SystemExit: With status 1 where a way ends elsewhere.
    """
    parser = make_parser(__doc__)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/same'))
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=list(WAYS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--quick', action='store_true', help='tiny sizes: does it run, not how well')
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    parser.add_argument('--out', type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(0)
    work = Work(args.work_dir, QUICK if args.quick else SIZES)
    work.prepare()
    runs = [work.run('start', 0), *(work.run(way, seed) for seed in args.seeds for way in args.ways)]
    write_csv(runs, args.out)
    if WAYS[0] in args.ways and not report(runs):
        raise SystemExit(1)


if __name__ == '__main__':
    run_main(main)
