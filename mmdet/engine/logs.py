"""What a run writes beside its checkpoints may fail, a full disk for one, and costs a warning then."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.visualization import Visualizer


@contextmanager
def warn_on_write_error(runner: Runner, file: Path) -> Iterator[None]:
    """Warn of a file that cannot be written, and go on."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or getattr(error.__cause__, 'strerror', None) or error
        runner.logger.warning(
            f'{file} cannot be written: {reason}. The run goes on without it; make room there.'
        )


class LogVisualizer(Visualizer):
    """MMEngine's, for scalars: one that cannot be written is told once and does not stop the training."""

    told = False

    @master_only
    def add_scalars(
        self, scalar_dict: dict[str, Any], step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Write numbers of a step, to each log on its own."""
        for name, backend in self._vis_backends.items():
            try:
                backend.add_scalars(scalar_dict, step, file_path, **kwargs)
            except OSError as error:
                self._tell(name, error)

    def close(self) -> None:
        """Finish every log."""
        for name, backend in self._vis_backends.items():
            try:
                backend.close()
            except OSError as error:
                self._tell(name, error)

    def _tell(self, name: str, error: OSError) -> None:
        if not self.told:
            self.told = True
            print_log(
                f'{name} cannot write the scalars of this run: {error}. The training goes on without them; '
                'make room, or they are missing from the curves.',
                'current',
                logging.WARNING,
            )


def tell_unwritten_lines(logger: logging.Logger) -> None:
    """Warn once of a text log that cannot be written, where Python would print a traceback for each line.

    Lines are tried again: once there is room they are written, those in between too as far as they fit into
    the file's buffer.
    """
    for handler in logger.handlers:
        handler.handleError = partial(_tell_lines, handler, set())  # type: ignore[method-assign]


def _tell_lines(handler: logging.Handler, told: set[str], record: logging.LogRecord) -> None:
    error = sys.exc_info()[1]
    if not isinstance(error, OSError):
        type(handler).handleError(handler, record)
    elif not told:
        told.add(str(error))
        file = getattr(handler, 'baseFilename', 'the output of this command')
        with suppress(OSError):  # the terminal's output may be a file on the same disk
            print(
                f'WARNING: {file} cannot be written: {error.strerror or error}. The run goes on without '
                'these lines of the log; make room there.',
                file=sys.stderr,
                flush=True,
            )
