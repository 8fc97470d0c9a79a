# `distill-det browse-dataset` in a clone that is not installed, see mmdet/commands/browse_dataset.py
from _clone import run_command

if __name__ == '__main__':
    run_command('browse_dataset')
