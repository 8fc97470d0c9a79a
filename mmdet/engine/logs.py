"""Keep long texts off the console; warn of logs that cannot be written, and go on.

A full disk costs lines, not the training.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.visualization import Visualizer

# How MMEngine's long texts begin: the environment, the config, the hooks, and a line that concerns nobody.
FILE_ONLY = ('\n-----', 'Config:', 'Hooks will be executed', 'Distributed training is not used')


def console_handlers(logger: logging.Logger) -> list[logging.StreamHandler[Any]]:
    """List the handlers of a log that write to the console."""
    handlers = [handler for handler in logger.handlers if isinstance(handler, logging.StreamHandler)]
    return [handler for handler in handlers if not isinstance(handler, logging.FileHandler)]


def keep_long_texts_off_the_console(logger: logging.Logger) -> None:
    """Leave MMEngine's hundreds of lines on config and environment to the log file."""
    if any(isinstance(handler, logging.FileHandler) for handler in logger.handlers):
        for handler in console_handlers(logger):
            handler.addFilter(lambda record: not str(record.msg).startswith(FILE_ONLY))


def is_step_line(record: logging.LogRecord) -> bool:
    """Tell whether a record is the line of a training step."""
    return str(record.msg).startswith('Epoch(train)')


def _warn(file: str | Path, reason: object) -> None:
    text = f'{file} cannot be written: {reason}. The run goes on without it; make room there.'
    print_log(text, 'current', logging.WARNING)  # MMEngine shows each text once


@contextmanager
def warn_on_write_error(file: str | Path) -> Iterator[None]:
    """Turn an error of writing a log into one warning."""
    try:
        yield
    except OSError as error:
        _warn(file, error.strerror or getattr(error.__cause__, 'strerror', None) or error)


class LogVisualizer(Visualizer):
    """Record scalars as MMEngine; what cannot be written costs one warning."""

    def add_scalars(self, *args: Any, **kwargs: Any) -> None:
        """Write numbers of a step to each log."""
        with warn_on_write_error('the log of scalars'):
            super().add_scalars(*args, **kwargs)

    def close(self) -> None:
        """Finish each log."""
        with warn_on_write_error('the log of scalars'):
            super().close()


def warn_of_lost_lines(logger: logging.Logger) -> None:
    """Warn once of a text log that cannot be written, where Python prints a traceback for each line."""
    for handler in logger.handlers:
        file = getattr(handler, 'baseFilename', 'the output of this command')
        handler.handleError = lambda record, file=file: _warn(file, sys.exc_info()[1])  # type: ignore
