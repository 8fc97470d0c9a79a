"""Install the package; the requirements live in requirements/*.txt and nowhere else."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
# The configs go into the wheel, see CONFIGS_ROOT in mmdet/files.py
SHIPPED = {f'mmdet.shipped.{name}': name for name in ('configs', 'configs_dev')}


def requirements(name: str) -> list[str]:
    """Read the lines of requirements/<name>.txt without comments."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line for line in (line.split('#')[0].strip() for line in lines) if line]


def version() -> str:
    """Read `__version__` of mmdet without importing it."""
    for line in (ROOT / 'mmdet' / 'version.py').read_text(encoding='utf-8').splitlines():
        if line.startswith('__version__'):
            return line.split("'")[1]
    raise ValueError('mmdet/version.py holds no __version__')


setup(
    name='distill-det',
    version=version(),
    description='Compact object detectors made better by distilling an image classifier into them',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=[*find_packages(include=['mmdet', 'mmdet.*']), *SHIPPED],
    package_dir=SHIPPED,
    package_data={name: ['**/*.py'] for name in SHIPPED},
    entry_points={'console_scripts': ['distill-det=mmdet.cli:main']},
    install_requires=requirements('runtime'),
    extras_require={name: requirements(name) for name in ('optional', 'tests')},
)
