# `distill-det publish-model` in a clone that is not installed, see mmdet/commands/publish_model.py
from _clone import run_command

if __name__ == '__main__':
    run_command('publish_model')
