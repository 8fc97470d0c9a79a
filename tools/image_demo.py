"""Detect on image files and write pictures of what was found."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet.cli import run_command

if __name__ == '__main__':
    run_command('predict')
