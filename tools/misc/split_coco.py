# `distill-det split-coco` in a clone that is not installed, see mmdet/commands/split_coco.py
from _clone import run_command

if __name__ == '__main__':
    run_command('split_coco')
