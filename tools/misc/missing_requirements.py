"""Print the requirements that the running Python does not meet; exit with 1 when there are any.

python tools/misc/missing_requirements.py runtime tests
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / 'requirements'


def missing(names: list[str]) -> list[str]:
    """List the lines of requirements/<name>.txt that are not met, and this package if need be."""
    from packaging.requirements import Requirement

    lines = [line.split('#')[0].strip() for name in names for line in (FOLDER / f'{name}.txt').open()]
    unmet = []
    for line in [*filter(None, lines), 'distill-det']:
        requirement = Requirement(line)
        try:
            met = requirement.specifier.contains(version(requirement.name), prereleases=True)
        except PackageNotFoundError:
            met = False
        if not met:
            unmet.append(line)
    return unmet


def main() -> None:
    """Check and print."""
    try:
        unmet = missing(sys.argv[1:])
    except ImportError:  # a bare Python has no `packaging` either
        unmet = ['everything']
    print(', '.join(unmet))
    sys.exit(bool(unmet))


if __name__ == '__main__':
    main()
