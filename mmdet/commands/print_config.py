"""Print a config as a run would use it: merged with the command line and resolved."""

import argparse
from collections.abc import Sequence

from mmdet.cli import add_config_arguments, apply_deprecated_args
from mmdet.config.resolve import merge_config, resolve


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
    apply_deprecated_args(args)
    cfg = merge_config(args.config, args.cfg_options, args.data_root)
    if not args.raw:
        try:
            resolve(cfg)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{error}\n  Without a data set: --raw') from error
    print(cfg.pretty_text)
