"""What mixed precision warns of."""

import pytest
import torch
from mmengine.logging import MMLogger

from mmdet.engine import amp


@pytest.mark.parametrize('fast', [True, False])
def test_a_cpu_without_bfloat16_is_told_once(monkeypatch, fast):
    told = []
    monkeypatch.setattr(amp, 'has_fast_bfloat16', lambda: fast)
    monkeypatch.setattr(amp, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', told.append)
    amp.AmpOptimWrapper(optimizer=torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1))
    assert [text[:21] for text in told] == ([] if fast else ['this CPU has no instr'])
