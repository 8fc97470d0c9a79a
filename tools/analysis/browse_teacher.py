"""Draw a sheet of objects exactly as the teacher of a distilled student gets them, with its answers."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet.cli import run_command

if __name__ == '__main__':
    run_command('teacher')
