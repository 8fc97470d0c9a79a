"""Translate a config of MMDetection 2.x, or of DICOD, into one of this toolbox.

python tools/misc/convert_config.py OLD.py NEW.py

For SSD, RetinaNet and Faster R-CNN. NEW.py is a child of the nearest config in configs/ or configs_dev/ and
holds what differs. What has no counterpart here is listed, and so is a `_base_` file of OLD.py that is not
there: what it said is then taken from the nearest config.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.cli import make_parser, parse

EMPTY = Path(__file__).with_name('__init__.py')  # a config that says nothing, in the place of a missing one


def read_old(file: Path) -> tuple[dict[str, Any], list[str]]:
    """Read a config whose `_base_` files may be missing.

    Returns:
        The merged config, and the `_base_` files that are not there.

    Raises:
        ValueError: It cannot be read.
    """
    from mmengine.config import Config

    missing = []

    def find_base(name: re.Match[str]) -> str:
        path = (file.parent / name[1]).resolve()
        if path.is_file():
            return repr(str(path))
        missing.append(f'_base_ {path}, which is missing')
        return repr(str(EMPTY))

    text = re.sub(
        r'^_base_\s*=\s*(\[[^]]*]|.+)',
        lambda bases: re.sub('["\']([^"\']+)["\']', find_base, bases[0]),
        file.read_text(encoding='utf-8'),
        flags=re.M,
    )
    try:
        return Config.fromstring(text, '.py').to_dict(), missing
    except (SyntaxError, OSError, ValueError, KeyError, NameError) as error:
        raise ValueError(f'{file}, or a _base_ file of it, cannot be read: {error}') from error


def main(argv: Sequence[str] | None = None) -> None:
    """Translate a file."""
    parser = make_parser(__doc__)
    parser.add_argument('old', type=Path, help='config of MMDetection 2.x')
    parser.add_argument('new', type=Path, help='file to write')
    args = parse(parser, argv)
    if args.new.exists():
        raise ValueError(f'{args.new} is there already; name another file')
    from mmengine.config import Config

    from mmdet.config.mmdetection import translate

    old, missing = read_old(args.old)
    base, changes, left_out = translate(old, str(args.old))
    left_out += missing
    parent = os.path.relpath(base, args.new.resolve().parent).replace(os.sep, '/')
    comments = [f'# {args.old.name} of MMDetection 2.x, translated by tools/misc/convert_config.py']
    comments += [f'# left out: {one}' for one in left_out]
    text = Config({'_base_': parent, **changes}).pretty_text  # sorted: _base_ comes first
    args.new.parent.mkdir(parents=True, exist_ok=True)
    args.new.write_text('\n'.join([*comments, text]), encoding='utf-8')
    print(f'{args.new}: a child of {base}\nleft out: {len(left_out) or "nothing"}')
    print(''.join(f'  {line}\n' for line in left_out), end='')
    print(f'python tools/train.py {args.new} --data-root DIR')
