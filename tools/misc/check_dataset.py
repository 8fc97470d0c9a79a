# `distill-det check` in a clone that is not installed, see mmdet/commands/check.py
from _clone import run_command

if __name__ == '__main__':
    run_command('check')
