"""Translate a config of MMDetection 2.x, or of DICOD, into one of this toolbox.

python tools/misc/convert_config.py OLD.py NEW.py

For SSD, RetinaNet and Faster R-CNN. NEW.py is a child of the nearest config in configs/ or configs_dev/ and
holds what differs. What has no counterpart here is listed, and so is a `_base_` file of OLD.py that is not
there: what it said is then taken from the nearest config.
"""

import ast
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.cli import make_parser


def read_old(file: Path) -> tuple[dict[str, Any], list[str]]:
    """Read a config whose `_base_` files may be missing.

    Returns:
        The merged config, and the `_base_` files that are not there.

    Raises:
        ValueError: It cannot be read.
    """
    from mmengine.config import Config

    text = file.read_text(encoding='utf-8')
    try:
        found = [
            node
            for node in ast.parse(text).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_base_'
        ]
        lines, missing = text.splitlines(), []
        for node in found:
            bases = ast.literal_eval(node.value)
            paths = [
                (file.parent / base).resolve() for base in ([bases] if isinstance(bases, str) else bases)
            ]
            missing = [str(path) for path in paths if not path.is_file()]
            there = [str(path) for path in paths if path.is_file()]
            lines[node.lineno - 1 : node.end_lineno] = [f'_base_ = {there!r}']
        with tempfile.TemporaryDirectory() as folder:  # MMEngine reads files only
            copied = Path(folder, file.name)
            copied.write_text('\n'.join(lines), encoding='utf-8')
            return Config.fromfile(copied, import_custom_modules=False).to_dict(), missing
    except (SyntaxError, OSError, ValueError, KeyError) as error:
        raise ValueError(f'{file}, or a _base_ file of it, cannot be read: {error}') from error


def write_child(file: Path, source: str, base: Path, changes: dict[str, Any], left_out: list[str]) -> str:
    """Write the text of a config: a comment on its `source`, its `base`, and the keys that it changes."""
    parent = os.path.relpath(base, file.resolve().parent).replace(os.sep, '/')
    lines = [f'# {source} of MMDetection 2.x, translated by tools/misc/convert_config.py']
    lines += [*(f'# left out: {one}' for one in left_out), f'_base_ = {parent!r}']
    for key, value in changes.items():
        twin = key == 'test_dataloader' and value == changes.get('val_dataloader')
        lines.append(f'{key} = {"val_dataloader" if twin else format_value(value)}')
    return '\n'.join(lines) + '\n'


def format_value(value: Any, indent: int = 0, before: int = 20) -> str:
    """Format a value as Python, in one line where it fits behind `before` characters."""
    if not isinstance(value, (dict, list, tuple)):
        return repr(value)
    inner = indent + 4
    if isinstance(value, dict):
        plain = all(str(key).isidentifier() for key in value)
        pairs = [(f'{key}=' if plain else f'{key!r}: ', item) for key, item in value.items()]
        items = [name + format_value(item, inner, len(name)) for name, item in pairs]
        opening, closing = ('dict(', ')') if plain else ('{', '}')
    else:
        items = [format_value(item, inner, 0) for item in value]
        opening, closing = '[]' if isinstance(value, list) else '()'
    line = ', '.join(items) + (',' if isinstance(value, tuple) and len(items) == 1 else '')
    if '\n' not in line and indent + before + len(line) < 100:
        return f'{opening}{line}{closing}'
    lines = ''.join(f'{" " * inner}{item},\n' for item in items)
    return f'{opening}\n{lines}{" " * indent}{closing}'


def main(argv: Sequence[str] | None = None) -> None:
    """Translate a file."""
    parser = make_parser(__doc__)
    parser.add_argument('old', type=Path, help='config of MMDetection 2.x')
    parser.add_argument('new', type=Path, help='file to write')
    args = parser.parse_args(argv)
    if args.new.exists():
        raise ValueError(f'{args.new} is there already; name another file')
    from mmdet.config.mmdetection import translate

    old, missing = read_old(args.old)
    base, changes, left_out = translate(old, str(args.old))
    left_out += [f'_base_ {file}, which is missing' for file in missing]
    args.new.parent.mkdir(parents=True, exist_ok=True)
    args.new.write_text(write_child(args.new, args.old.name, base, changes, left_out), encoding='utf-8')
    print(f'{args.new}: a child of {base}\nleft out: {len(left_out) or "nothing"}')
    print(''.join(f'  {line}\n' for line in left_out), end='')
    print(f'python tools/train.py {args.new} --data-root DIR')
