"""Imports run downward only: no room imports one above it, and no two modules import each other."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / 'mmdet'
ROOMS = (  # from the lowest
    *('version', 'files', 'registry', 'structures', 'distributed', 'checkpoint', 'classifiers'),
    *('visualization', 'synthetic', 'datasets', 'models', 'distillation', 'evaluation', 'config', 'engine'),
    *('cli', 'apis', 'analysis', 'commands', '__main__'),
)
MODULES = {
    '.'.join(file.relative_to(PACKAGE.parent).with_suffix('').parts).removesuffix('.__init__'): file
    for file in PACKAGE.rglob('*.py')
}


def imported(module: str) -> set[str]:
    """Modules of the package that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f'{node.module}.{alias.name}' for alias in node.names} | {node.module}
    return {name for name in found if name in MODULES and name not in ('mmdet', module)}


def room(module: str) -> str:
    return module.split('.')[1]


def test_no_import_runs_back_up() -> None:
    upward = [
        f'{module} imports {other}'
        for module in MODULES
        if module != 'mmdet'
        for other in imported(module)
        if ROOMS.index(room(other)) > ROOMS.index(room(module))
    ]
    assert not upward


def test_no_circle() -> None:
    # A package re-exports its modules, so a module's import of its own package is an order, not a circle.
    graph = {
        module: {other for other in imported(module) if not module.startswith(f'{other}.')}
        for module in MODULES
    }
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_nothing_but_models_and_the_config_names_the_head() -> None:
    naming = {room(module) for module, file in MODULES.items() if 'bbox_head' in file.read_text('utf-8')}
    assert naming <= {'models', 'config'}
