"""Parse `KEY=VALUE` options that change a config. Imports no torch."""

import argparse
import ast
import contextlib
from typing import Any

# How keys of paths and names end: their values are text, whatever that looks like.
TEXT_KEYS = {
    'data_root', 'train_ann', 'train_img', 'val_ann', 'val_img', 'test_ann', 'test_img', 'ann_file', 'img',
    'load_from', 'work_dir', 'experiment_name', 'arch', 'checkpoint', 'weights', 'file', 'out_dir',
    'outfile_prefix', 'jsonfile_prefix', 'save_dir', 'img_save_dir', 'config_save_file', 'scalar_save_file',
    'collect_dir', 'out_file_path', 'json_trace_path', 'result_path', 'artifact_location', 'exp_name',
    'run_name', 'log_code_name', 'filename_tmpl',
}  # fmt: skip


class DictAction(argparse.Action):
    """Collects `KEY=VALUE` arguments in a dict; of a key that is given twice, the later value counts."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add the pairs of one occurrence of the option."""
        pairs = dict(getattr(namespace, self.dest) or {})
        for pair in values:
            key, equals, text = pair.partition('=')
            if not key or not equals:
                parser.error(f'{option_string} takes KEY=VALUE, got {pair!r} (quote values that hold spaces)')
            pairs[key] = parse_text(text) if key.rpartition('.')[2] in TEXT_KEYS else parse_value(text)
        setattr(namespace, self.dest, pairs)


def parse_text(text: str) -> Any:
    """Parse the value of one of `TEXT_KEYS`: text, without quotes around it; None, and a dict in braces."""
    text = text.strip()
    if text.lower() == 'none' or text.startswith('{'):
        return parse_value(text)
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] in '"\'' else text


def parse_value(text: str) -> Any:
    """Parse the text behind `KEY=`.

    A Python literal, `dict(a=1)` as in config files, true / false / none in any case, `a,b` or `[a,b]` for a
    list, `(a,b)` for a tuple, all of them nested; anything else is a string as it stands, spaces included.
    """
    text = text.strip()
    words = {'true': True, 'false': False, 'none': None}
    if text.lower() in words:
        return words[text.lower()]
    bracketed = text[:1] + text[-1:] in ('[]', '()')
    with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        value = ast.literal_eval(_Dicts().visit(ast.parse(text, mode='eval')))
        return list(value) if isinstance(value, tuple) and not bracketed else value
    items = _split(text[1:-1] if bracketed else text)
    if not bracketed and len(items) < 2:
        return text
    values = [parse_value(item) for item in items]
    return tuple(values) if bracketed and text[0] == '(' else values


class _Dicts(ast.NodeTransformer):
    """Turns dict(a=1) into {'a': 1}, a literal."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        names = [keyword.arg for keyword in node.keywords]
        if ast.unparse(node.func) != 'dict' or node.args or None in names:
            return node
        return ast.Dict([ast.Constant(name) for name in names], [keyword.value for keyword in node.keywords])


def _split(text: str) -> list[str]:
    """Split at the commas outside brackets."""
    items, depth = [''], 0
    for character in text:
        depth += (character in '[({') - (character in '])}')
        if character == ',' and depth == 0:
            items.append('')
        else:
            items[-1] += character
    return [item for item in items if item.strip()]
