"""Print a config as a run would use it: merged with the command line and resolved.

python tools/misc/print_config.py configs/ssd/ssd300.py --raw
"""

from collections.abc import Sequence

from mmdet.cli import add_config_arguments, make_parser, parse


def main(argv: Sequence[str] | None = None) -> None:
    """Print the config that the arguments describe."""
    parser = make_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument(
        '--raw',
        action='store_true',
        help='as merged, before paths and classes are filled in; needs no data set',
    )
    args = parse(parser, argv)
    from mmdet.config.resolve import merge_config, resolve

    cfg = merge_config(args.config, args.cfg_options, args.data_root)
    if not args.raw:
        try:
            resolve(cfg)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{error}\n  Without a data set: --raw') from error
    print(cfg.pretty_text)
