"""The log of a run: a file in its folder, and the terminal."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def run_log(name: str, path: Path, command: str, level: int) -> Iterator[logging.Logger]:
    """Log to a file and to the terminal, and take library warnings along; undone at the end.

    Parameters
    ----------
    name : str
        Of the logger.
    path : Path
        Of the file, which is continued.
    command : str
        Begins every line on the terminal.
    level : int
        Of what the terminal shows; the file has everything.
    """
    log, warnings = logging.getLogger(name), logging.getLogger("py.warnings")
    before = log.level, log.propagate, warnings.propagate
    log.setLevel(logging.DEBUG)
    log.propagate = warnings.propagate = False
    to_file = _LogFile(path, mode="a", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    terminal = _Terminal(level)
    terminal.setFormatter(logging.Formatter(f"{command}: %(message)s"))
    log.addHandler(to_file)
    log.addHandler(terminal)
    warnings.addHandler(to_file)
    logging.captureWarnings(True)
    try:
        yield log
    finally:
        logging.captureWarnings(False)
        for logger in (log, warnings):
            logger.removeHandler(to_file)
        log.removeHandler(terminal)
        to_file.close()
        log.setLevel(before[0])
        log.propagate, warnings.propagate = before[1:]


class _Terminal(logging.Handler):
    """Log lines on standard error that do not tear the bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


class _LogFile(logging.FileHandler):
    """A log that cannot be written (a full disk) is no reason for more noise on the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Keep quiet."""

    def close(self) -> None:
        """Close, whatever could not be written."""
        with contextlib.suppress(OSError):
            super().close()
