"""Who is missing in a run of several processes: words in a real store, without the processes."""

import faulthandler
import json
import signal
from datetime import timedelta

import pytest
from torch.distributed import DistBackendError, DistNetworkError, DistStoreError, PrefixStore, TCPStore

from mmdet.cli import run_main
from mmdet.distributed import heartbeat
from mmdet.distributed.heartbeat import Heartbeat, explain_lost_ranks, note_end

LOST = RuntimeError('[/gloo/transport/tcp/pair.cc:545] Connection closed by peer [10.0.0.2]:4711')


@pytest.fixture
def processes(monkeypatch):
    """Three processes, of which this one is process 0 and the last one never begins."""
    store = TCPStore('127.0.0.1', 0, is_master=True, timeout=timedelta(seconds=5))
    begun = [Heartbeat(PrefixStore('heartbeat', store), rank, 3) for rank in range(2)]
    monkeypatch.setattr(Heartbeat, 'of_run', begun[0])
    monkeypatch.setattr(heartbeat, 'GRACE', 0.2)
    before = signal.getsignal(signal.SIGTERM)
    yield begun
    faulthandler.cancel_dump_traceback_later()
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    'error', [LOST, DistBackendError('NCCL error: remote process exited'), DistStoreError('wait timeout')]
)
def test_names_who_does_not_answer(processes, monkeypatch, error):
    """The launcher's SIGTERM does not interrupt it; a store that does not answer ends it."""
    ends = []
    monkeypatch.setattr(faulthandler, 'dump_traceback_later', lambda *a, **k: ends.append((a, k)))
    lost, one, two, remedy = explain_lost_ranks(error).splitlines()
    assert lost == f'process 0 has lost the others ({error})'
    assert one.startswith('  process 1 (host ') and one.endswith(') does not answer: it has died or hangs')
    assert two == '  process 2 (it never began) does not answer: it has died or hangs'
    assert '--resume' in remedy
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    assert ends == [((4 * heartbeat.GRACE,), {'exit': True})]
    assert processes[1].store.get('end/0') == b''  # it is there, and no culprit


@pytest.mark.parametrize(
    ('error', 'reason'),
    [(ValueError('no such file'), 'no such file'), (RuntimeError('a bug'), 'RuntimeError: a bug')],
)
def test_an_error_of_its_own_is_told_to_the_others_and_to_the_launcher(
    processes, tmp_path, monkeypatch, error, reason
):
    monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', str(tmp_path / 'error.json'))

    def fail():
        raise error

    with pytest.raises((SystemExit, RuntimeError)):
        run_main(fail)
    monkeypatch.setattr(Heartbeat, 'of_run', processes[1])
    assert f'process 0 ended with an error: {reason}' in explain_lost_ranks(LOST)
    recorded = json.loads((tmp_path / 'error.json').read_text())['message']
    assert recorded['message'] == f'{type(error).__name__}: {error}'
    assert 'in fail' in recorded['extraInfo']['py_callstack']


def test_all_are_there(processes):
    Heartbeat(processes[0].store, 2, 3).leave('')
    processes[1].leave('')
    assert 'every process answers: the network between them failed' in explain_lost_ranks(LOST)


def test_the_launcher_is_gone(processes, monkeypatch):
    """Its end closes the store."""
    monkeypatch.setenv('MASTER_ADDR', '10.0.0.1')

    def gone(_):
        raise DistNetworkError('Broken pipe')

    monkeypatch.setattr(processes[0], 'leave', gone)
    assert 'the launcher on 10.0.0.1, which held the list of all, is gone' in explain_lost_ranks(LOST)
    note_end(LOST, 'whatever')


def test_other_errors_and_a_run_of_one_are_not_explained(processes, monkeypatch):
    for error in (RuntimeError('shapes do not fit'), ValueError('no'), KeyError('x')):
        assert explain_lost_ranks(error) is None
    monkeypatch.setattr(Heartbeat, 'of_run', None)
    note_end(LOST, 'an error')
    assert explain_lost_ranks(LOST) is None
