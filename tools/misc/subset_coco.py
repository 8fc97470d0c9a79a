# `distill-det subset-coco` in a clone that is not installed, see mmdet/commands/subset_coco.py
from _clone import run_command

if __name__ == '__main__':
    run_command('subset_coco')
