"""When learning curves are drawn, and of what; how they look is `tests/unit/visualization/test_curves.py`."""

from tests.helpers.tiny_run import train


def test_drawn_at_the_end(toy_config, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr('mmdet.visualization.curves.plot_curves', lambda *given: calls.append(given))
    cfg = toy_config(train_cfg={'type': 'TrainLoop', 'max_iters': 1})
    cfg.default_hooks.curves = {'type': 'CurvesHook'}
    train(cfg)
    (((scalars,), picture),) = calls
    assert scalars.is_file()
    assert picture == tmp_path / 'run/curves.png'
