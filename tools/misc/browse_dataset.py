"""Write samples of a data set, as training or evaluation gets them, as pictures with their boxes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet.cli import run_command

if __name__ == '__main__':
    run_command('browse_dataset')
