"""Processes join, or say why not."""

import socket
from datetime import timedelta

import pytest
import torch.distributed as dist

from mmdet.distributed.heartbeat import Heartbeat
from mmdet.distributed.launch import start_process_group


def test_processes_that_do_not_meet_are_told_what_to_set(monkeypatch):
    variables = {'RANK': '0', 'LOCAL_RANK': '0', 'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1'}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with socket.create_server(('', 0)) as server:
        port = str(server.getsockname()[1])
        monkeypatch.setenv('MASTER_PORT', port)
        with pytest.raises(OSError, match=f'port {port} is in use .* set MASTER_PORT'):
            start_process_group('pytorch')
    with pytest.raises(OSError, match=r'1/2 clients joined.*MASTER_ADDR=127.0.0.1 .*WORLD_SIZE=2'):
        start_process_group('pytorch', timeout=0.1)


def test_a_restart_does_not_find_what_the_start_before_has_noted(monkeypatch):
    """In one store, the launcher's; and both ways of waiting end in time."""
    store, waits = dist.HashStore(), []
    monkeypatch.setattr(Heartbeat, 'of_run', None)
    monkeypatch.setattr(dist, 'rendezvous', lambda _, timeout: waits.append(timeout) or iter([(store, 0, 2)]))
    monkeypatch.setattr(dist, 'init_process_group', lambda *_, timeout, **__: waits.append(timeout))
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'):
        monkeypatch.setenv(name, 'to be restored')
    for name, value in {'RANK': '0', 'LOCAL_RANK': '0', 'SIZE': '2'}.items():
        monkeypatch.setenv(f'OMPI_COMM_WORLD_{name}', value)
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('MASTER_PORT', '29500')
    for count in '012':
        monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', count)
        start_process_group('mpi', timeout=9)
        assert not Heartbeat.of_run.store.check(['end/0'])
        Heartbeat.of_run.leave('')
        assert Heartbeat.of_run.store.check(['end/0'])
    assert waits == [timedelta(seconds=9)] * 6
