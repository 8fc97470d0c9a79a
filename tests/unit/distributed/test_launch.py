"""Cards and launchers."""

import socket
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from mmdet.distributed.heartbeat import Heartbeat
from mmdet.distributed.launch import check_cards, start_process_group

NEW_TORCH = ['sm_75', 'sm_80', 'sm_86', 'sm_90', 'sm_100', 'sm_120', 'compute_120']
COVERED = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 1), (13, 0)]


@pytest.fixture
def cards(monkeypatch):
    """Makes torch believe in GPUs of some compute capabilities, and in the code that it was built with."""

    def believe(capabilities, built=NEW_TORCH):
        for name, value in (
            ('device_count', lambda: len(capabilities)),
            ('get_device_capability', capabilities.__getitem__),
            ('get_device_name', 'card {}'.format),
            ('get_arch_list', lambda: built),
        ):
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch.version, 'cuda', '13.0')

    return believe


@pytest.mark.parametrize(('capabilities', 'built'), [(COVERED, NEW_TORCH), ([(9, 0)], ['sm_90a']), ([], [])])
def test_covered_cards(cards, capabilities, built):
    cards(capabilities, built)
    check_cards()


@pytest.mark.parametrize(
    ('capability', 'built'),
    [((7, 0), NEW_TORCH), ((6, 1), NEW_TORCH), ((11, 0), NEW_TORCH), ((9, 1), ['sm_90a'])],
)
def test_a_card_that_is_not_covered_stops_the_run(cards, capability, built):
    cards([(9, 0), capability], built)
    with pytest.raises(OSError, match=r'^card 1 \(compute') as caught:
        check_cards()
    assert "pip install 'torch==2.6.*' 'torchvision==0.21.*'" in str(caught.value).splitlines()


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
