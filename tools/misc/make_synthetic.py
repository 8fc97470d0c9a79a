# `distill-det make-synthetic` in a clone that is not installed, see mmdet/commands/make_synthetic.py
from _clone import run_command

if __name__ == '__main__':
    run_command('make_synthetic')
