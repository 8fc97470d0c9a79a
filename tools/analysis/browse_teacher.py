# `distill-det teacher` in a clone that is not installed, see mmdet/commands/teacher.py
from _clone import run_command

if __name__ == '__main__':
    run_command('teacher')
