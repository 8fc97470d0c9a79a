"""Report what of a data set cannot be used: faulty annotations and bad image files."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet.cli import run_command

if __name__ == '__main__':
    run_command('check')
