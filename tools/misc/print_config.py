"""Print a config as a run would use it: merged with the command line and resolved."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet.utils.cli import add_config_arguments, run_tool, take_old_spellings
from mmdet.utils.config import merge_config, resolve


def main(argv: Sequence[str] | None = None) -> None:
    """Print the config that the arguments describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument(
        '--raw',
        action='store_true',
        help='as merged, before paths and classes are filled in; needs no data set',
    )
    args = parser.parse_args(argv)
    take_old_spellings(args)
    cfg = merge_config(args.config, args.cfg_options, args.data_root)
    if not args.raw:
        try:
            resolve(cfg)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{error}\n  Without a data set: --raw') from error
    print(cfg.pretty_text)


if __name__ == '__main__':
    run_tool(main)
