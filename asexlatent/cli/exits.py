"""Exit codes of the commands, and what is said when an error ends one."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from asexlatent.cli.settings import UsageError

EXIT_DONE, EXIT_NOTHING, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

_GO_ON = "the same command goes on from here"


def exit_code(command: str, work: Callable[[], int]) -> int:
    """Do the work of a command and return its exit code.

    What a user can mend (arguments, the disk, workers) becomes a line on standard error that says
    so; anything else is a defect and is raised.
    """
    try:
        return work()
    except UsageError as error:
        said, code = f"error: {error}", EXIT_USAGE
    except KeyboardInterrupt:  # before anything could be kept, or for the second time
        said, code = f"interrupted; {_GO_ON}", EXIT_INTERRUPTED
    except OSError as error:
        said, code = f"error: {_storage_problem(error)}; {_GO_ON}", EXIT_NOTHING
    except RuntimeError as error:
        from asexlatent.workers import WorkersError

        if not isinstance(error, WorkersError):
            raise
        said, code = f"error: {error}; {_GO_ON}", EXIT_NOTHING
    print(f"{command}: {said}", file=sys.stderr)
    return code


def _storage_problem(error: OSError) -> str:
    """Say what is wrong with the disk and what to do about it."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "the disk is full: make room" if full else str(error)
