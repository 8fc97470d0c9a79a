"""Who is missing in a run of several processes: notes in a real store, without the processes."""

import faulthandler
import re
import signal
from datetime import timedelta

import pytest
import torch
from torch.distributed import DistBackendError, DistStoreError, PrefixStore, TCPStore

from mmdet.cli import run_main
from mmdet.distributed import heartbeat
from mmdet.distributed.heartbeat import Heartbeat, explain_lost_ranks, note_end, record_position

LOST = RuntimeError('[/gloo/transport/tcp/pair.cc:545] Connection closed by peer [10.0.0.2]:4711')


@pytest.fixture
def processes(monkeypatch):
    """The heartbeat of three processes; this one is process 0."""
    store = TCPStore('127.0.0.1', 0, is_master=True, timeout=timedelta(seconds=5))
    notes = [Heartbeat(PrefixStore('heartbeat', store), rank, 3) for rank in range(3)]
    monkeypatch.setattr(Heartbeat, 'of_run', notes[0])
    monkeypatch.setattr(heartbeat, 'GRACE', 0.5)
    before = signal.getsignal(signal.SIGTERM)
    yield notes
    faulthandler.cancel_dump_traceback_later()
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    'error',
    [
        LOST,
        DistBackendError('NCCL error: remote process exited'),
        DistStoreError('wait timeout after 6000ms'),
    ],
)
def test_names_who_does_not_answer(processes, error):
    processes[1].note('in iteration 12 (before_train_iter)')
    processes[2].leave('')  # has lost somebody, too
    said = explain_lost_ranks(error)
    assert str(error).splitlines()[0] in said
    assert 'process 1 (host' in said
    assert re.search(r'last seen in iteration 12 \(before_train_iter\), [01] s ago', said)
    assert 'process 2' not in said
    assert '--resume' in said


def test_asks_in_peace_but_not_for_ever(processes, monkeypatch):
    """The launcher's SIGTERM does not interrupt it; a store that does not answer ends it."""
    ends = []
    monkeypatch.setattr(heartbeat.faulthandler, 'dump_traceback_later', lambda *a, **k: ends.append((a, k)))
    explain_lost_ranks(LOST)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    assert ends == [((4 * heartbeat.GRACE,), {'exit': True})]
    assert processes[1].store.get('left/0') == b''  # it is there, and no culprit


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        (ValueError('there is no such file'), 'there is no such file'),
        (RuntimeError('a bug'), 'RuntimeError: a bug'),
        (KeyboardInterrupt(), 'interrupted'),
    ],
)
def test_a_tool_leaves_its_own_error_to_the_others(processes, error, reason):
    def fail():
        raise error

    with pytest.raises((SystemExit, RuntimeError)):
        run_main(fail)
    assert processes[1].store.get('left/0').decode() == reason


def test_names_who_ended_with_an_error_and_who_never_began(processes):
    processes[1].leave('ValueError: a fault of its own')
    said = explain_lost_ranks(LOST)
    assert 'process 1 ended with an error: ValueError: a fault of its own' in said
    assert 'process 2 never began' in said


def test_all_are_there(processes):
    for one in processes[1:]:
        one.leave('')
    assert 'every process answers: the network between them failed' in explain_lost_ranks(LOST)


def test_the_launcher_is_gone(processes, monkeypatch):
    """Its end closes the store."""
    monkeypatch.setenv('MASTER_ADDR', '10.0.0.1')

    class Gone:
        def set(self, key, value):
            raise torch.distributed.DistNetworkError('Broken pipe')

    processes[0].store = Gone()
    assert 'the launcher on 10.0.0.1, which held the list of all, is gone' in explain_lost_ranks(LOST)
    note_end('whatever')


@pytest.mark.parametrize('error', [RuntimeError('shapes do not fit'), ValueError('no'), KeyError('x')])
def test_other_errors_are_not_explained(processes, error):
    assert explain_lost_ranks(error) is None


def test_notes_are_written_once_a_second(processes, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(heartbeat.time, 'monotonic', lambda: now[0])
    seen = []
    for step in range(1, 6):
        now[0] += 0.4
        record_position(f'in iteration {step}')
        seen.append(processes[0]._describe(0))
    assert ['iteration 1' in text for text in seen] == [True, True, True, False, False]
    assert 'iteration 4' in seen[-1]


def test_a_run_of_one_notes_nothing(monkeypatch):
    monkeypatch.setattr(Heartbeat, 'of_run', None)
    record_position('in iteration 1')
    note_end('an error')
    assert explain_lost_ranks(LOST) is None
