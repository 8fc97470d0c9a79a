# Lets the commands of this folder find the package in a clone that is not installed.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet.cli import run_command

__all__ = ['run_command']
