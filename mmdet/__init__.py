"""Distill image classifiers into compact object detectors."""

import sys
from pathlib import Path

from mmdet.version import __version__

__all__ = ['__version__']


def _refuse_second_copy() -> None:
    """Stop when another `mmdet` (MMDetection, an older install) could be imported half of the time."""
    here = Path(__file__).resolve().parent
    found = {(Path(entry or '.') / 'mmdet').resolve() for entry in sys.path}
    others = sorted(str(path) for path in found if path != here and (path / '__init__.py').is_file())
    if others:
        raise ImportError(
            f'two packages are named mmdet: {here} (this one) and {", ".join(others)}. '
            'Remove the other one: `pip uninstall mmdet` or `pip uninstall distill-det`, or use a fresh '
            'virtual environment.'
        )


_refuse_second_copy()
