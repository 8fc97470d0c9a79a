"""A model of one layer and a set of numbers: small enough to train a hundred times in a test run."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import nn

from mmdet.datasets.collate import BadImage
from mmdet.datasets.training_boxes import Fault
from mmdet.registry import COLLATES, DATASETS, METRICS, MODELS
from mmdet.structures import GroundTruth
from tests.helpers.tiny_run import be_quick

NUMBER = itertools.count()  # MMEngine names logs by the second


@DATASETS.register_module(force=True)
class ToyDataset:
    """`length` pictures; those of `bad` cannot be read."""

    def __init__(self, length=10, seed=0, bad=(), faults=(), classes=('cat', 'dog')):
        self.length, self.seed, self.bad = length, seed, bad
        self.faults = [Fault(*fault) for fault in faults]
        self.metainfo = {'classes': tuple(classes)}

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        index, draw = key
        if index in self.bad:
            return BadImage(index, self.image_file(index), 'truncated')
        generator = torch.Generator().manual_seed(self.seed * 1000 + draw)
        return index, torch.rand(4, generator=generator)

    def image_file(self, img_id):
        return f'{img_id}.jpg'

    def read_image_fault(self, img_id):
        return 'truncated' if img_id in self.bad else None


@COLLATES.register_module(force=True)
def collate_toys(samples, scale=1):
    bad = [sample for sample in samples if isinstance(sample, BadImage)]
    good = [sample for sample in samples if not isinstance(sample, BadImage)] or [(-1, torch.zeros(4))]
    good = good * 2 if len(good) == 1 else good  # BatchNorm needs two
    ids = torch.tensor([index for index, _ in good])
    none = torch.zeros(len(good), 16)
    shape = torch.ones(len(good), 2, dtype=torch.int64)
    gt = GroundTruth(
        ids, shape, shape, none[..., None].expand(-1, -1, 4), none.long(), none.bool(), none.long()
    )
    return {'inputs': scale * torch.stack([number for _, number in good]), 'gt': gt, 'bad_images': bad}


@MODELS.register_module(force=True)
class ToyModel(BaseModel):
    """Dropout makes it depend on the generators of the process.

    In step `explode_at` a loss is not finite, in step `break_gradient` a gradient alone.
    """

    def __init__(self, width=4, dropout=0.5, explode_at=None, break_gradient=None, weights='given'):
        super().__init__()
        self.layer = nn.Linear(4, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)
        self.explode_at, self.break_gradient, self.weights = explode_at, break_gradient, weights
        self.steps = 0

    def init_weights(self):
        if self.weights == 'missing':
            raise FileNotFoundError('vgg16.pth belongs to ~/.cache')

    def forward(self, inputs, gt, bad_images=None, mode='loss'):
        out = self.dropout(self.norm(self.layer(inputs)))
        if mode == 'predict':
            return [{'id': int(i), 'value': float(v)} for i, v in zip(gt.img_id, out.mean(1), strict=True)]
        self.steps += 1
        loss = (out - 1).square().mean()
        losses = {'loss_cls': loss, 'loss_bbox': 0.5 * loss}
        if self.steps == self.explode_at:
            losses['loss_bbox'] = loss * float('nan')
        if self.steps == self.break_gradient:
            losses['loss_root'] = (self.layer.weight.sum() * 0).sqrt()
        return losses


@METRICS.register_module(force=True)
class ToyMetric:
    """Scores given beforehand, one an evaluation."""

    def __init__(self, scores):
        self.scores = list(scores)
        self.dataset_meta = None

    def process(self, data_batch, data_samples):
        pass

    def evaluate(self, size):
        return {'toy/score': self.scores.pop(0)}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    be_quick(monkeypatch)


def make_toy_config(work_dir: Path, **keys) -> Config:
    """Ten images, two a step, two epochs; keywords replace keys of the config."""
    loader = {
        'dataset': {'type': 'ToyDataset'},
        'sampler': {'type': 'DetSampler', 'shuffle': True},
        'collate_fn': {'type': 'collate_toys'},
        'batch_size': 2,
        'num_workers': 0,
        'persistent_workers': True,
        'prefetch_factor': 2,
    }
    base = Config.fromfile(Path(__file__).parents[3] / 'configs/_base_/default_runtime.py')
    cfg = {
        **base.to_dict(),
        'experiment_name': f'toy_{next(NUMBER)}',
        'work_dir': str(work_dir),
        'model': {'type': 'ToyModel'},
        'train_dataloader': loader,
        'train_cfg': {'type': 'TrainLoop', 'max_epochs': 2},
        'optim_wrapper': {
            'type': 'OptimWrapper',
            'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9},
        },
        'param_scheduler': [
            {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'begin': 0, 'end': 4},
            {'type': 'MultiStepLR', 'by_epoch': True, 'milestones': [1], 'gamma': 0.1},
        ],
        'val_cfg': None,
        'test_cfg': None,
        'log_level': 'WARNING',
    }
    cfg['default_hooks']['checkpoint']['save_best'] = None
    cfg['default_hooks']['logger']['interval'] = 1
    cfg['default_hooks'] |= {'curves': None, 'distillation_monitor': None}
    cfg.update(keys)
    return Config(cfg)


@pytest.fixture
def toy_config(tmp_path: Path):
    """`make_toy_config`, in `tmp_path/run`."""
    return lambda work_dir=tmp_path / 'run', **keys: make_toy_config(work_dir, **keys)


def evaluating(cfg: Config, scores) -> Config:
    """The same config, with an evaluation that gives these scores."""
    cfg.val_cfg = {'type': 'ValLoop'}
    cfg.val_dataloader = {
        **copy.deepcopy(cfg.train_dataloader),
        'sampler': {'type': 'DetSampler', 'shuffle': False},
    }
    cfg.val_evaluator = {'type': 'ToyMetric', 'scores': list(scores)}
    return cfg


@pytest.fixture
def with_evaluation(toy_config):
    """`toy_config` with an evaluation that gives these scores."""
    return lambda scores, **keys: evaluating(toy_config(**keys), scores)
