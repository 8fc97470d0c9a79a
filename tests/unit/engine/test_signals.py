"""SIGTERM and SIGINT at chosen moments, sent by a hook to this process and to its data workers."""

import multiprocessing
import os
import signal
import subprocess
import threading
import time

import pytest
import torch
from mmengine.hooks import Hook
from torch.utils.data import DataLoader

from mmdet.checkpoint.io import load_checkpoint
from mmdet.datasets.collate import init_worker
from mmdet.distributed.signals import GracefulShutdown, StoppedBySignal
from mmdet.engine import DetRunner
from tests.unit.engine.test_loops import train, weights


class SignalAt(Hook):
    """Sends signals when the method `moment` is called for the `number`-th time."""

    def __init__(self, moment, number, signals=(signal.SIGTERM,)):
        self.moment, self.left, self.signals = moment, number, signals

    def _maybe(self, moment):
        self.left -= moment == self.moment
        if moment == self.moment and self.left == 0:
            group = [str(child.pid) for child in multiprocessing.active_children()] + [str(os.getpid())]
            for number in self.signals:
                subprocess.run(['kill', f'-{int(number)}', *group], check=True)  # not from their parent


for method in (
    'before_train',
    'before_train_iter',
    'after_train_iter',
    'after_train_epoch',
    'before_val_iter',
    'after_val_iter',
    'before_save_checkpoint',
    'after_train',
):
    setattr(SignalAt, method, lambda self, *_, moment=method, **__: self._maybe(moment))


@pytest.fixture
def config(with_evaluation, tmp_path):
    """Two epochs of five steps; an evaluation of five batches with the average weights after each."""

    def make(folder, scores=(0.1, 0.2), workers=0, **keys):
        cfg = with_evaluation(scores, work_dir=str(tmp_path / folder), **keys)
        cfg.custom_hooks = [{'type': 'EMAHook', 'momentum': 0.3}]
        cfg.default_hooks.checkpoint.save_best = 'toy/score'
        cfg.train_dataloader.num_workers = cfg.val_dataloader.num_workers = workers
        return cfg

    return make


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


@pytest.mark.parametrize(
    ('moment', 'number', 'iteration', 'scores'),
    [
        ('before_train', 1, 1, (0.1, 0.2)),
        ('before_train_iter', 3, 3, (0.1, 0.2)),
        ('after_train_iter', 3, 4, (0.1, 0.2)),
        ('before_train_iter', 5, 5, (0.1, 0.2)),  # the last of an epoch
        ('after_train_epoch', 1, 5, (0.1, 0.2)),
        ('before_save_checkpoint', 1, 5, (0.1, 0.2)),
        ('before_val_iter', 3, 5, (0.1, 0.2)),
        ('after_val_iter', 8, 10, (0.2,)),  # inside the last evaluation
        ('before_train_iter', 10, 10, (0.2,)),  # the last step of all
    ],
)
def test_a_stopped_run_goes_on_to_the_same_end(config, tmp_path, moment, number, iteration, scores):
    train(config('whole'))
    before = handlers()
    runner = DetRunner.from_cfg(config('parts'))
    runner.register_hook(SignalAt(moment, number))
    with pytest.raises(StoppedBySignal) as stop:
        runner.train()
    assert stop.value.code == 128 + signal.SIGTERM
    assert handlers() == before
    assert load_checkpoint(tmp_path / 'parts/latest.pth')['meta']['iter'] == iteration
    left = runner.val_loop.evaluator.metrics[0].scores
    assert len(left) == len(scores)  # of an evaluation that was stopped nothing is recorded
    resumed = train(config('parts', scores, resume=True))
    assert resumed.val_loop.evaluator.metrics[0].scores == []  # nothing is evaluated twice or left out
    assert (tmp_path / 'parts/best_toy_score_epoch_2.pth').is_file()
    whole, parts = (weights(tmp_path / folder / 'latest.pth') for folder in ('whole', 'parts'))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_stopped_evaluation_gives_the_average_back(config, tmp_path):
    """Where nothing was saved before it: as the run leaves the training weights are."""

    def rarely_saved(*args, **keywords):
        cfg = config(*args, **keywords)
        cfg.default_hooks.checkpoint.interval = 2
        return cfg

    moment = ('before_val_iter', 3, 5, (0.1, 0.2))
    test_a_stopped_run_goes_on_to_the_same_end(rarely_saved, tmp_path, *moment)


def test_workers_outlive_both_signals(config, tmp_path):
    runner = DetRunner.from_cfg(config('run', workers=1))
    both = (signal.SIGTERM, signal.SIGINT, signal.SIGTERM)
    runner.register_hook(SignalAt('before_train_iter', 3, both))
    with pytest.raises(StoppedBySignal):
        runner.train()
    assert load_checkpoint(tmp_path / 'run/latest.pth')['meta']['iter'] == 3
    workers = multiprocessing.active_children()
    assert workers
    for worker in workers:
        worker.terminate()  # from its parent: obeyed
        worker.join(5)
        assert worker.exitcode == 0


def test_workers_are_born_deaf(config, tmp_path, monkeypatch):
    """Until they know whom to obey; this process is not deaf meanwhile."""

    def note(worker_id):
        (tmp_path / 'held').write_text(' '.join(number.name for number in held()))
        init_worker(worker_id)  # or nothing would end this worker

    monkeypatch.setattr('mmdet.engine.runner.init_worker', note)
    cfg = config('run', workers=1)
    cfg.train_cfg.max_epochs = 1
    train(cfg)
    assert {'SIGTERM', 'SIGINT'} <= set((tmp_path / 'held').read_text().split())
    assert not {signal.SIGTERM, signal.SIGINT} & held()


def held():
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize(('moment', 'number'), [('after_train', 1), ('before_train_iter', 10)])
def test_a_signal_when_nothing_is_left_to_do_ends_nothing(config, moment, number):
    """In the last step, where no evaluation follows, or after it."""
    cfg = config('run')
    if moment == 'before_train_iter':
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.default_hooks.checkpoint.save_best = None
    runner = DetRunner.from_cfg(cfg)
    runner.register_hook(SignalAt(moment, number))
    runner.train()
    assert runner.iter == 10


def test_a_worker_ends_as_soon_as_its_loader():
    """torch would wait for five seconds before it ends one by force."""
    batches = iter(DataLoader(range(4), num_workers=1, worker_init_fn=init_worker))
    next(batches)
    start = time.monotonic()
    del batches
    assert time.monotonic() - start < 4


def test_a_second_signal_ends_at_once(monkeypatch):
    """A repeat of the first within two seconds is not a second one."""
    monkeypatch.setattr('mmdet.distributed.signals.REPEAT', 0.5)
    ended = []
    before = signal.signal(signal.SIGTERM, lambda *_: ended.append('outside'))
    try:
        watch = GracefulShutdown()
        with watch:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert watch.received == signal.SIGTERM
            monkeypatch.setattr('mmdet.distributed.signals.REPEAT', 0.0)
            monkeypatch.setattr('signal.raise_signal', ended.append)
            os.kill(os.getpid(), signal.SIGTERM)
        assert ended == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended[1:] == ['outside']
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_was_ignored_stays_ignored_and_other_threads_install_nothing():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with GracefulShutdown():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
    seen = []

    def elsewhere():
        with GracefulShutdown():
            seen.extend(handlers())

    outside = handlers()
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == outside
