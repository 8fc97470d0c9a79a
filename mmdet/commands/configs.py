"""List the configs that come with the toolbox, or copy them to a folder to change them there.

distill-det configs                 # any command takes these names: distill-det train ssd/ssd300.py
distill-det configs --copy my_work  # my_work/configs, my_work/configs_dev
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from mmdet.cli import make_parser, parse
from mmdet.files import CONFIGS_ROOT, shipped_configs


def main(argv: Sequence[str] | None = None) -> None:
    """List or copy."""
    parser = make_parser(__doc__)
    parser.add_argument('--copy', type=Path, metavar='FOLDER', help='copy all of them into FOLDER')
    args = parse(parser, argv)
    if args.copy is None:
        print('\n'.join(shipped_configs()))
        return
    for name in ('configs', 'configs_dev'):
        if (args.copy / name).exists():
            raise FileExistsError(f'{args.copy / name} is there already: choose another folder')
        ignore = shutil.ignore_patterns('__pycache__')
        shutil.copytree(CONFIGS_ROOT / name, args.copy / name, ignore=ignore)
    print(f'copied to {args.copy}')
