# `distill-det convert-config` in a clone that is not installed, see mmdet/commands/convert_config.py
from _clone import run_command

if __name__ == '__main__':
    run_command('convert_config')
