"""Trainings each way: the rule that compares them can refuse, and every way runs in its small size."""

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.bfloat16 import RoundedConvolutions
from benchmarks.convergence_parity import QUICK, WAYS, Work, main
from benchmarks.parity import T95, compare
from benchmarks.reference.network import BaselineSSD300, flat
from benchmarks.reference.training import endless
from mmdet.registry import MODELS
from mmdet.synthetic.dataset import make_dataset
from tests.helpers.tiny_run import be_quick

LONG = os.environ.get('DISTILL_LONG')
OURS = (0.300, 0.310, 0.305)


@pytest.mark.parametrize(
    ('theirs', 'verdict'),
    [
        (OURS, 'same'),
        ((0.303, 0.296, 0.309), 'same'),
        ((0.270, 0.280, 0.275), 'different'),  # worse by six deviations
        ((0.330, 0.340, 0.335), 'different'),  # better is not the same either
        ((0.250, 0.310, 0.370), 'spread too wide'),
        ((0.305, float('nan'), 0.305), 'different'),
    ],
)
def test_the_rule(theirs: tuple[float, ...], verdict: str) -> None:
    assert compare(OURS, theirs).verdict == verdict
    assert compare(OURS[:1], OURS[:1]).verdict == 'spread too wide'  # one seed each says nothing


def test_the_interval_is_that_of_student() -> None:
    """Two samples of three with a deviation of 0.005: 2.776 times it times the root of 2/3."""
    found = compare(OURS, [ap + 0.01 for ap in OURS])
    assert found.difference == pytest.approx(0.01)
    assert found.allowed == pytest.approx(2.776 * 0.005 * math.sqrt(2 / 3))


def test_quantiles() -> None:
    """The density of Student's t, summed from 0 to each quantile, is 0.475."""
    for freedom, quantile in enumerate(T95, start=1):
        constant = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
        at = torch.linspace(0, quantile, 100_001, dtype=torch.float64)
        density = constant * (1 + at**2 / freedom) ** (-(freedom + 1) / 2)
        assert torch.trapezoid(density, at).item() == pytest.approx(0.475, abs=2e-5)


def test_rounded_convolutions_are_those_of_bfloat16() -> None:
    """The same but for torch's slow form, which also rounds parts of the sums of a gradient."""
    torch.manual_seed(0)
    images, weight = torch.randn(2, 8, 9, 9), torch.randn(6, 8, 3, 3)

    def gradients() -> list[torch.Tensor]:
        tensors = [x.clone().requires_grad_() for x in (images, weight)]
        with torch.autocast('cpu', dtype=torch.bfloat16):
            found = torch.conv2d(*tensors, padding=1)
        assert found.dtype == torch.bfloat16
        found.float().square().sum().backward()
        return [found.detach().float(), *(x.grad for x in tensors)]

    expected = gradients()
    with RoundedConvolutions():
        rounded = gradients()
    for bound, own, theirs in zip((1e-3, 5e-3, 5e-3), rounded, expected, strict=True):
        assert (own - theirs).norm() <= bound * theirs.norm()
    exact = torch.conv2d(images, weight, padding=1)
    assert (exact - expected[0]).norm() > 1e-3 * expected[0].norm()


def test_each_photo_comes_once_each_time_through() -> None:
    rows = endless(5, np.random.default_rng(0))
    passes = [[next(rows) for _ in range(5)] for _ in range(3)]
    assert all(sorted(rows) == [0, 1, 2, 3, 4] for rows in passes)
    assert passes[0] != passes[1]


def test_weights_come_through(tmp_path: Path) -> None:
    """Into the baseline network and back: the same outputs, statistics of the batch norms included."""
    work = Work(tmp_path, QUICK)
    make_dataset(tmp_path / 'data', *QUICK['images'], size=QUICK['side'])
    torch.manual_seed(0)
    start, back = (MODELS.build(work.student('some', 1, 0.1).model) for _ in range(2))
    images = 60 * torch.randn(2, 3, 300, 300)
    with torch.no_grad():
        start.raw_outputs(images)  # the statistics of the batch norms move away from 0 and 1
        expected = start.eval().raw_outputs(images)
        baseline = BaselineSSD300(start.head.num_classes, QUICK['width'], batch_norm=True).take_weights(start)
        baseline.give_weights(back)
        found = back.eval().raw_outputs(images)
        cls_maps, box_maps = baseline.eval()(images)
    assert all(torch.equal(one, other) for one, other in zip(found[:2], expected[:2], strict=True))
    for of_baseline, of_start in (
        (flat(cls_maps, 1, baseline.num_classes + 1), expected[0][1]),
        (flat(box_maps, 1, 4), expected[1][1]),
    ):
        assert (of_baseline - of_start).abs().max() <= 1e-4 * of_start.abs().max()


def test_small_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two steps teach nothing, which is refused; then with results as a long run might leave them."""
    be_quick(monkeypatch)
    ways = WAYS if LONG else tuple(way for way in WAYS if way != 'compiled')
    typed = [
        '--quick',
        '--work-dir',
        str(tmp_path),
        '--out',
        str(tmp_path / 'out.csv'),
        '--ways',
        *ways,
        '--seeds',
        '0',
    ]
    with pytest.raises(SystemExit, match='1'):
        main(typed)
    assert 'the comparison says nothing' in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / 'out.csv').open()))
    assert [(row['way'], row['seed']) for row in rows] == [(way, '0') for way in ('start', *ways)]
    assert all(row['mode'] == 'quick' and row['torch'] and row['commit'] for row in rows)
    assert all(0 <= float(row['AP']) <= 1 and float(row['seconds']) > 0 for row in rows)

    def plant(way: str, *aps: float) -> None:
        """Write what the trainings of a way have ended at."""
        content = json.loads((tmp_path / f'{way}_seed0.json').read_text())
        for seed, ap in enumerate(aps):
            (tmp_path / f'{way}_seed{seed}.json').write_text(json.dumps({**content, 'seed': seed, 'AP': ap}))

    for way in ways:
        plant(way, 0.3, 0.31)
    main([*typed, '1'])
    plant('baseline', 0.2, 0.21)
    with pytest.raises(SystemExit, match='1'):
        main([*typed, '1'])
    printed = capsys.readouterr().out
    assert 'different' in printed and '-0.1000' in printed
    with pytest.raises(ValueError, match='choose another folder'):
        Work(tmp_path, {**QUICK, 'steps': 3}).run('baseline', 0)
