# `distill-det print-config` in a clone that is not installed, see mmdet/commands/print_config.py
from _clone import run_command

if __name__ == '__main__':
    run_command('print_config')
