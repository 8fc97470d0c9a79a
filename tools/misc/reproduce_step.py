"""Run a step again whose losses were not finite, from what training has kept of it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet.cli import run_command

if __name__ == '__main__':
    run_command('reproduce_step')
