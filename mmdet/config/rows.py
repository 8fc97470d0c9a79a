"""Define the rows of an ablation: which terms of a distilled config a run keeps.

The top-level key `row` of a config names one, `--cfg-options row=plain` as well. `resolve` applies it.
"""

from typing import Any

ROWS = {'plain': 'plain', 'cls': '+KDcls', 'loc': '+loc', 'loc_kdloc': '+loc+KDloc', 'all': 'all'}  # titles
NEEDED: dict[str, tuple[str, ...]] = {
    'plain': (),  # the student without its distiller
    'cls': ('kd_cls',),  # recognition
    'loc': ('kd_loc',),  # localization in pixels, which needs no teacher
    'loc_kdloc': ('kd_loc',),  # localization in pixels and in the teacher's features
    'all': (),  # every loss that the config has
}


def apply_row(cfg: Any) -> None:
    """Reduce `model.distiller` of a merged config to what `cfg.row` keeps, and remove that key.

    A config without the key, or with None, stays as it is.

    Raises:
        ValueError: No such row, or the config lacks a part that it needs.
    """
    row = cfg.pop('row', None)
    if row is None:
        return
    if row not in ROWS:
        raise ValueError(f'row={row!r} is not known: choose one of {", ".join(ROWS)}')
    distiller: Any = cfg.model.get('distiller') or {}
    missing = [f'.{name}' for name in NEEDED[row] if not distiller.get(name)]
    if missing or (row == 'all' and not distiller):
        raise ValueError(
            f'row={row} needs model.distiller{"".join(missing[:1])}: choose another of {", ".join(ROWS)}, '
            'or give the config of a student with both losses, e.g. configs_dev/ssd/ssd300_coco_cls_loc.py'
        )
    if row == 'all':
        return
    if row == 'plain':
        cfg.model.pop('distiller', None)
        return
    for name in {'kd_cls', 'kd_loc'}.difference(NEEDED[row]):
        distiller[name] = None
    if row == 'loc':
        distiller.teacher = None
        _keep_pixels(distiller.kd_loc)


def _keep_pixels(kd_loc: Any) -> None:
    """Reduce a localization loss to its pixel level, with the weight of that level."""
    if 'pixels' not in kd_loc.levels:
        raise ValueError(f'row=loc needs the level pixels in model.distiller.kd_loc.levels={kd_loc.levels}')
    place, weight = list(kd_loc.levels).index('pixels'), kd_loc.get('loss_weight', 1.0)
    kd_loc.levels, kd_loc.pool_sizes = ('pixels',), (kd_loc.pool_sizes[place],)
    kd_loc.loss_weight = weight if isinstance(weight, (int, float)) else weight[place]
