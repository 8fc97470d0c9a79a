# `distill-det crop-set` in a clone that is not installed, see mmdet/commands/crop_set.py
from _clone import run_command

if __name__ == '__main__':
    run_command('crop_set')
