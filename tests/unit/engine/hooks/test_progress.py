"""Progress on a terminal."""

import pytest

from tests.helpers.tiny_run import train


@pytest.mark.parametrize('terminal', [True, False])
def test_a_terminal_gets_a_bar_and_a_log_file_every_line(terminal, toy_config, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('FORCE_COLOR' if terminal else 'NO_COLOR', '1')  # rich asks them first
    cfg = toy_config(train_cfg={'type': 'TrainLoop', 'max_iters': 3})
    cfg.default_hooks.progress = {'type': 'ProgressHook'}
    cfg.default_hooks.logger.interval = 2
    cfg.log_level = 'INFO'
    train(cfg)
    shown = capsys.readouterr().out
    assert ('3/3' in shown) == terminal
    assert ('Epoch(train)' in shown) != terminal
    assert 'M parameters are trained' in shown
    assert 'Config:' not in shown
    (log,) = (tmp_path / 'run').glob('*/*.log')
    written = log.read_text()
    assert written.count('Epoch(train)') == 3  # the first step, the second, the last
    assert 'Config:' in written
    assert 'Hooks will be executed' in written
