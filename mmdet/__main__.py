"""Run `distill-det` without its script: `python -m mmdet COMMAND ...`, or this file from any folder."""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from mmdet.cli import main

    main()
