"""Workers on other machines, through Dask distributed (the extra ``asexlatent[dask]``)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor

from asexlatent.workers import WorkersError

_LEAST = 8
"""Chunks in flight while there is no worker yet: adaptive clusters grow with what waits."""


@contextlib.contextmanager
def connect(scheduler: str, timeout: float = 30.0) -> Iterator[tuple[Executor, Callable[[], int]]]:
    """Executor of the Dask cluster at an address, and how many chunks it can have in flight.

    Parameters
    ----------
    scheduler : str
        Such as ``tcp://10.0.0.1:8786``; or the path of a scheduler file (``.json``).
    timeout : float
        Seconds to wait for the scheduler.

    Raises
    ------
    WorkersError
        Dask is not installed, or nothing answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise WorkersError("Dask is not installed: pip install 'asexlatent[dask]'") from None
    where = {"scheduler_file" if scheduler.endswith(".json") else "address": scheduler}
    try:
        client = Client(**where, timeout=timeout, set_as_default=False)
    except Exception as error:  # network, address, versions: Dask raises whatever it likes
        why = " ".join(str(error).split()) or type(error).__name__
        raise WorkersError(f"no Dask scheduler answers at {scheduler}: {why}") from None
    known = _LEAST

    def in_flight() -> int:
        nonlocal known
        with contextlib.suppress(OSError, TimeoutError):  # not reachable for a moment
            known = max(2 * sum(client.nthreads().values()), _LEAST)
        return known

    with client:
        yield client.get_executor(pure=False), in_flight
