# `distill-det benchmark` in a clone that is not installed, see mmdet/commands/benchmark.py
from _clone import run_command

if __name__ == '__main__':
    run_command('benchmark')
