# `distill-det export` in a clone that is not installed, see mmdet/commands/export.py

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet.cli import run_command

if __name__ == '__main__':
    run_command('export')
