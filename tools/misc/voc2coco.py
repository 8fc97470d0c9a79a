# `distill-det voc2coco` in a clone that is not installed, see mmdet/commands/voc2coco.py
from _clone import run_command

if __name__ == '__main__':
    run_command('voc2coco')
