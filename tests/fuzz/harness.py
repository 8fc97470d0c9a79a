"""What both fuzz targets share: the file that is read, and what reading it must not do.

Beyond ValueError with the file's name nothing may come out. While the file is read, no other file is opened
and no module imported that reading good files has not needed; decoders of text do not count.
"""

import contextlib
import encodings
import importlib
import pkgutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

FORBIDDEN = ('import', 'subprocess.Popen', 'os.system', 'os.exec', 'socket.connect', 'exec')


class Forbidden(BaseException):
    """No code under test catches it."""


def fuzz(
    read: Callable[[Path], Any], seeds: Iterable[bytes], suffix: str, modules: Iterable[ModuleType]
) -> None:
    """Fuzz a reader until libFuzzer's options in `sys.argv` (-max_total_time=60) end it.

    Args:
        read: Reads a file and checks what it returns.
        seeds: Contents to begin with.
        suffix: Of the file.
        modules: Whose branches guide the fuzzer.
    """
    import atheris

    for module in modules:
        for holder in (module, *(x for x in vars(module).values() if isinstance(x, type))):
            for name, function in list(vars(holder).items()):
                if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                    setattr(holder, name, atheris.instrument_func(function))
    folder = Path(tempfile.mkdtemp(prefix='fuzz_'))
    file, corpus = folder / f'input{suffix}', folder / 'corpus'
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
        file.write_bytes(seed)
        one(read, file)  # warm up: what is imported late is imported now
    for codec in pkgutil.iter_modules(encodings.__path__):
        with contextlib.suppress(ImportError):  # of other systems
            importlib.import_module(f'encodings.{codec.name}')
    reading = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not reading:
            return
        opened = event == 'open' and isinstance(arguments[0], (str, bytes)) and str(arguments[0]) != str(file)
        if opened or event in FORBIDDEN:
            raise Forbidden(f'{event}: {arguments[:2]}')

    sys.addaudithook(watch)

    def test_one_input(data: bytes) -> None:
        nonlocal reading
        file.write_bytes(data)
        reading = True
        try:
            one(read, file)
        finally:
            reading = False

    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f'-artifact_prefix={folder}/',
            '-rss_limit_mb=4096',
            '-timeout=20',
            *sys.argv[1:],
        ],
        test_one_input,
    )
    atheris.Fuzz()


def one(read: Callable[[Path], Any], file: Path) -> None:
    """Read once; a refusal must name the file."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            read(file)
        except ValueError as error:
            if str(file) not in str(error):
                raise AssertionError(f'the message does not name the file: {error}') from error
