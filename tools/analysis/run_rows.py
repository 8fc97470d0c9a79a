"""Train and test the rows of the proof table: each row and seed is a unit that leaves one JSON file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet.cli import run_command

if __name__ == '__main__':
    run_command('run_rows')
