"""How good a teacher is on the crops that the distiller cuts, and how much of its certainty is deserved."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet.cli import run_command

if __name__ == '__main__':
    run_command('report')
