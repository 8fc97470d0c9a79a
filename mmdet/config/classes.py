"""Choose and compare the classes of data, configs and checkpoints."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config


def chosen_classes(cfg: Config) -> tuple[str, ...] | None:
    """Get the class names of the key `classes`; None where it is not there."""
    if cfg.get('classes') is None:
        return None
    given = cfg.classes if isinstance(cfg.classes, (list, tuple)) else [cfg.classes]
    return tuple(map(str, given))  # names like 7, which are read as numbers


def check_chosen(chosen: Sequence[str], known: Sequence[str], file: Path) -> None:
    """Make sure that classes are chosen out of those of a file.

    Raises:
        ValueError: Names the missing ones, the nearest name, and all of the file.
    """
    missing = [name for name in chosen if name not in known]
    if missing or not chosen or len(set(chosen)) < len(chosen):
        near = difflib.get_close_matches(missing[0], known, n=1) if missing else []
        raise ValueError(
            f'classes={list(chosen)} chooses different names out of those of {file}'
            + (f', which has no {", ".join(missing)}.' if missing else '.')
            + (f' Did you mean {near[0]}?' if near else '')
            + f'\n  It has {len(known)}: {", ".join(known)}'
        )


def choice(classes: Sequence[str]) -> str:
    """Say how classes are chosen on the command line."""
    return f'--cfg-options "classes={list(classes)}"'


def check_classes(
    data: Sequence[str], data_source: str, other: Sequence[str], other_source: str, ordered: bool = True
) -> None:
    """Compare class names, and their order where it gives labels their meaning.

    Raises:
        ValueError: They differ; says where, and prints both lists.
    """
    if tuple(data) == tuple(other) or (not ordered and set(data) == set(other)):
        return
    shared = [name for name in other if name in data]
    choose = shared and (len(shared) == len(other) or not ordered)
    only = {'first': set(data) - set(other), 'second': set(other) - set(data)}
    parts = [f'only in the {which}: {sorted(names)}' for which, names in only.items() if names]
    raise ValueError(
        f'classes differ ({"; ".join(parts) or "same names in another order"}):\n'
        f'  {data_source} has {len(data)}: {", ".join(data)}\n'
        f'  {other_source} has {len(other)}: {", ".join(other)}\n'
        '  Use files of the same data set: --data-root FOLDER, --cfg-options train_ann=... val_ann=..., or a '
        'checkpoint that was trained on these classes.'
        + (f'\n  To choose among the classes of a file: {choice(shared)}' if choose else '')
    )
