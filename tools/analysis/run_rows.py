# `distill-det run-rows` in a clone that is not installed, see mmdet/commands/run_rows.py
from _clone import run_command

if __name__ == '__main__':
    run_command('run_rows')
