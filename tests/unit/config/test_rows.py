"""Rows of an ablation: what `row` leaves of a distilled config."""

from typing import Any

import pytest
from mmengine.config import Config

from mmdet.config.resolve import merge_config
from mmdet.config.rows import ROWS, apply_row
from tests.helpers.tiny_run import DISTILLED, ROOT

SSD300 = ROOT / 'configs_dev/ssd/ssd300_coco_cls_loc.py'


def reduced(cfg: Config) -> Any:
    apply_row(cfg)
    assert 'row' not in cfg  # so that resolving twice changes nothing
    return cfg.to_dict()['model'].get('distiller')


def with_kd_loc(row: str, **kd_loc: Any) -> Config:
    cfg = merge_config(DISTILLED, {'row': row})
    cfg.model.distiller.kd_loc.update(kd_loc)
    return cfg


@pytest.mark.parametrize('row', ROWS)
def test_rows_of_a_distilled_config(row: str) -> None:
    whole = reduced(merge_config(SSD300))
    pixels = {**whole['kd_loc'], 'levels': ('pixels',), 'pool_sizes': (4,)}
    expected = {
        'plain': None,
        'cls': {**whole, 'kd_loc': None},
        'loc': {**whole, 'kd_cls': None, 'teacher': None, 'kd_loc': pixels},
        'loc_kdloc': {**whole, 'kd_cls': None},
        'all': whole,
    }[row]
    assert reduced(merge_config(SSD300, {'row': row})) == expected
    file = SSD300.with_name(f'ssd300_coco_{row}.py')
    if file.is_file():  # the paper's ablations: one value is changed
        assert reduced(merge_config(file)) == expected


def test_the_pixel_level_keeps_its_own_size_and_weight() -> None:
    kd_loc = reduced(with_kd_loc('loc', levels=('stem', 'pixels'), pool_sizes=(8, 2), loss_weight=(0.3, 0.7)))
    assert (kd_loc['kd_loc']['pool_sizes'], kd_loc['kd_loc']['loss_weight']) == ((2,), 0.7)


def test_all_keeps_the_losses_that_there_are() -> None:
    one = merge_config(DISTILLED, {'model.distiller.kd_loc': None})
    whole = reduced(one)
    assert reduced(merge_config(DISTILLED, {'row': 'all', 'model.distiller.kd_loc': None})) == whole


@pytest.mark.parametrize(
    ('row', 'missing'), [('cls', 'distiller.kd_cls'), ('loc', 'distiller.kd_loc'), ('all', 'distiller')]
)
def test_a_row_that_the_config_does_not_have(row: str, missing: str) -> None:
    cfg = merge_config(DISTILLED, {'row': row, f'model.{missing}': None})
    with pytest.raises(ValueError, match=f'row={row} needs model.{missing}: .*plain, cls, loc, loc_k'):
        apply_row(cfg)


def test_rows_that_cannot_be() -> None:
    with pytest.raises(ValueError, match='row=loc needs the level pixels'):
        apply_row(with_kd_loc('loc', levels=('stem',), pool_sizes=(8,)))
    with pytest.raises(
        ValueError, match="row='none' is not known: choose one of plain, cls, loc, loc_kdloc, all"
    ):
        apply_row(merge_config(DISTILLED, {'row': 'none'}))
