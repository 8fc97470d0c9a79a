"""Cards and launchers."""

from datetime import timedelta

import pytest
import torch

from mmdet.distributed.heartbeat import Heartbeat, note_end
from mmdet.distributed.launch import check_cards, interface_to, start_process_group

NEW_TORCH = ['sm_75', 'sm_80', 'sm_86', 'sm_90', 'sm_100', 'sm_120', 'compute_120']


@pytest.mark.parametrize('capability', [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 1), (13, 0)])
def test_covered_cards(capability):
    check_cards([('a card', capability)], NEW_TORCH)


@pytest.mark.parametrize('capability', [(7, 0), (6, 1), (11, 0)])
def test_a_card_that_is_not_covered_stops_the_run(capability):
    cards = [('NVIDIA H100', (9, 0)), ('Tesla V100-SXM2-16GB', capability)]
    with pytest.raises(OSError) as caught:
        check_cards(cards, NEW_TORCH)
    assert 'Tesla V100-SXM2-16GB' in str(caught.value)
    assert "pip install 'torch==2.6.*' 'torchvision==0.21.*'" in str(caught.value).splitlines()


def test_code_for_one_card_alone():
    check_cards([('a card', (9, 0))], ['sm_90a'])
    with pytest.raises(OSError):
        check_cards([('a card', (9, 1))], ['sm_90a'])


def test_no_card_is_fine():
    check_cards([], [])
    check_cards()


def test_launchers_say_what_they_lack(monkeypatch):
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r'needs RANK in the environment: start with tools/dist_train\.sh'):
        start_process_group('pytorch')
    with pytest.raises(ValueError, match='got slurmm'):
        start_process_group('slurmm')


def test_the_interface_to_a_host():
    assert interface_to('127.0.0.1') == 'lo'
    assert interface_to('no-such-host.invalid') is None


def test_a_restart_does_not_find_what_the_start_before_has_noted(monkeypatch):
    """In one store, the launcher's; and both ways of waiting end in time."""
    store = torch.distributed.HashStore()
    waits = []
    monkeypatch.setattr(Heartbeat, 'of_run', None)
    monkeypatch.setattr(
        torch.distributed,
        'rendezvous',
        lambda url, timeout: waits.append(timeout) or iter([(store, 0, 2)]),
    )
    monkeypatch.setattr(
        torch.distributed, 'init_process_group', lambda *_, timeout, **__: waits.append(timeout)
    )
    for name, value in (
        ('RANK', '0'),
        ('LOCAL_RANK', '0'),
        ('WORLD_SIZE', '2'),
        ('MASTER_ADDR', '127.0.0.1'),
    ):
        monkeypatch.setenv(name, value)
    for name in ('MASTER_PORT', 'GLOO_SOCKET_IFNAME'):
        monkeypatch.setenv(name, 'to be restored')
    for count in '012':
        monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', count)
        start_process_group('pytorch', timeout=9)
        assert not Heartbeat.of_run.store.check(['left/0'])
        note_end('an error')
        assert Heartbeat.of_run.store.check(['left/0'])
    assert waits == [timedelta(seconds=9)] * 6
