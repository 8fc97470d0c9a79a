# `distill-det convert-config` in a clone that is not installed, see mmdet/commands/convert_config.py

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet.cli import run_command

if __name__ == '__main__':
    run_command('convert_config')
