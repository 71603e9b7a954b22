"""`--log-level`: the log of the library on stderr."""

from __future__ import annotations

import logging
from enum import StrEnum

from hedgerow.cli.common import err

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LogLevel(StrEnum):
    """The levels of the log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class _OnConsole(logging.Handler):
    """Prints one line per record, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(self.format(record), soft_wrap=True, highlight=False, markup=False)


def log_to_console(level: LogLevel) -> None:
    """Print the records of `hedgerow.*` from a level on, and the warnings of other packages.

    `hedgerow serve` replaces the handler by its own, which writes the same records as JSON.
    """
    logging.getLogger("hedgerow").setLevel(level.upper())
    logging.basicConfig(format=FORMAT, handlers=[_OnConsole()], force=True)
