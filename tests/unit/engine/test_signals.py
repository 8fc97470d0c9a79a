"""SIGTERM and SIGINT at chosen moments, sent by a hook to this process and to its data workers."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from mmengine.hooks import Hook

from mmdet.checkpoint.io import load_checkpoint
from mmdet.distributed.signals import GracefulShutdown, StoppedBySignal
from mmdet.engine import DetRunner
from tests.helpers.same import assert_same_checkpoints
from tests.helpers.tiny_run import ROOT, train
from tests.unit.engine.conftest import evaluating, make_toy_config

SCORES = (0.1, 0.2)


class SignalAt(Hook):
    """Sends signals when the method `moment` is called for the `number`-th time."""

    def __init__(self, moment, number, signals=(signal.SIGTERM,)):
        self.left, self.signals = number, signals
        setattr(self, moment, self._maybe)

    def _maybe(self, *_, **__):
        self.left -= 1
        if self.left == 0:
            group = [str(child.pid) for child in multiprocessing.active_children()] + [str(os.getpid())]
            for number in self.signals:
                subprocess.run(['kill', f'-{int(number)}', *group], check=True)  # not from their parent


def config(folder, scores=SCORES, counts=1, interval=1, **keys):
    """Two epochs of five steps; an evaluation of five batches with the average weights after each."""
    cfg = evaluating(make_toy_config(folder, **keys), scores)
    cfg.custom_hooks = [{'type': 'EMAHook', 'momentum': 0.3}]
    cfg.default_hooks.checkpoint.update(save_best='toy/score', interval=interval)
    cfg.optim_wrapper.accumulative_counts = counts
    return cfg


def stopped(cfg, moment, number, signals=(signal.SIGTERM,)):
    """Train until the signal."""
    runner = DetRunner.from_cfg(cfg)
    runner.register_hook(SignalAt(moment, number, signals))
    with pytest.raises(StoppedBySignal) as stop:
        runner.train()
    assert stop.value.code == 128 + signals[0]
    return runner


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Folders of runs that are not stopped, named by the number of batches that are summed."""
    folder = tmp_path_factory.mktemp('whole')
    for counts in (1, 3):
        train(config(folder / str(counts), counts=counts))
    return folder


@pytest.mark.parametrize(
    ('moment', 'number', 'iteration', 'scores', 'options'),
    [
        ('before_train', 1, 1, SCORES, {}),
        ('before_train_iter', 3, 3, SCORES, {}),
        ('after_train_iter', 3, 4, SCORES, {}),
        ('before_train_iter', 5, 5, SCORES, {}),  # the last of an epoch
        ('after_train_epoch', 1, 5, SCORES, {}),
        ('before_save_checkpoint', 1, 5, SCORES, {}),
        ('before_val_iter', 3, 5, SCORES, {}),
        ('before_val_iter', 3, 5, SCORES, {'interval': 2}),  # saved after the evaluation that was stopped
        ('after_val_iter', 8, 10, (0.2,), {}),  # inside the last evaluation
        ('before_train_iter', 10, 10, (0.2,), {}),  # the last step of all
        ('before_train_iter', 7, 8, (0.2,), {'counts': 3}),  # waits for the step of the optimizer
    ],
)
def test_a_stopped_run_goes_on_to_the_same_end(tmp_path, whole, moment, number, iteration, scores, options):
    before = handlers()
    runner = stopped(config(tmp_path, **options), moment, number)
    assert handlers() == before
    assert load_checkpoint(tmp_path / 'latest.pth')['meta']['iter'] == iteration
    left = runner.val_loop.evaluator.metrics[0].scores
    assert len(left) == len(scores)  # of an evaluation that was stopped nothing is recorded
    resumed = train(config(tmp_path, scores, **options, resume=True))
    assert resumed.val_loop.evaluator.metrics[0].scores == []  # nothing is evaluated twice or left out
    assert (tmp_path / 'best_toy_score_epoch_2.pth').is_file()
    assert_same_checkpoints(whole / f'{options.get("counts", 1)}/latest.pth', tmp_path / 'latest.pth')


def test_workers_outlive_both_signals(tmp_path):
    cfg = config(tmp_path)
    cfg.train_dataloader.num_workers = 1
    runner = stopped(cfg, 'before_train_iter', 3, (signal.SIGTERM, signal.SIGINT, signal.SIGTERM))
    assert load_checkpoint(tmp_path / 'latest.pth')['meta']['iter'] == 3
    (worker,) = runner.train_loop.dataloader._iterator._workers
    runner.train_loop.dataloader._iterator = None  # a loader that is given up ends them
    worker.join(5)
    assert worker.exitcode == 0
    assert not {signal.SIGTERM, signal.SIGINT} & signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize('moment', [('after_train', 1), ('before_train_iter', 10)])
def test_a_signal_when_nothing_is_left_to_do_ends_nothing(tmp_path, moment):
    """After the last evaluation, or in the last step where none follows."""
    cfg = config(tmp_path)
    if moment[0] == 'before_train_iter':
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.default_hooks.checkpoint.save_best = None
    runner = DetRunner.from_cfg(cfg)
    runner.register_hook(SignalAt(*moment))
    runner.train()
    assert runner.iter == 10


STUCK = """
import ctypes, signal
from mmdet.distributed import signals
signals.REPEAT = 1.0
signal.alarm(60)  # ends it where the test fails
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
mutex = ctypes.create_string_buffer(64)
with signals.GracefulShutdown():
    print(flush=True)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""


def test_a_second_signal_ends_at_once():
    """Also where no Python runs; a repeat of the first within two seconds is not a second one."""
    with subprocess.Popen([sys.executable, '-c', STUCK], cwd=ROOT, stdout=-1, stderr=-1, text=True) as stuck:
        stuck.stdout.readline()
        stuck.send_signal(signal.SIGTERM)
        stuck.send_signal(signal.SIGTERM)
        assert stuck.stderr.readline().startswith('SIGTERM: finishing this step')
        time.sleep(1.1)
        assert stuck.poll() is None
        stuck.send_signal(signal.SIGINT)
        _, said = stuck.communicate()
    assert stuck.returncode == 128 + signal.SIGINT
    assert said == 'SIGINT again: ending at once\n'


def test_a_signal_goes_to_who_waited_for_it_before():
    ended = []
    before = signal.signal(signal.SIGTERM, lambda *_: ended.append('outside'))
    try:
        with GracefulShutdown():
            os.kill(os.getpid(), signal.SIGTERM)
        assert not ended
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == ['outside']
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
