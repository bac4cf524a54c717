"""Where the chunks of a command are worked on: here, in local workers, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from types import TracebackType

from asexlatent.cli.settings import UsageError
from asexlatent.parallel import LocalWorkers, WorkersError, on_accelerator, usable_cores


class Engine:
    """A context manager; nothing is left running at its end.

    Parameters
    ----------
    workers : int, optional
        Local processes; default: one per usable core, and none for work on an accelerator.
    scheduler : str, optional
        Address of a Dask scheduler.
    device : str
        Torch device of the work.

    Raises
    ------
    UsageError
        Both were asked for, or (on entering) there is no such scheduler.
    """

    def __init__(self, workers: int | None, scheduler: str | None, device: str = "cpu"):
        if workers is not None and scheduler is not None:
            raise UsageError("--workers is for this machine: leave it out with --scheduler")
        self.workers, self.scheduler, self.device = workers, scheduler, device
        self._executor: Executor | None = None
        self._in_flight: int | Callable[[], int] = 1

    def __enter__(self) -> Engine:
        self._stack = ExitStack()
        if self.scheduler is not None:
            from asexlatent.cluster import connect

            try:
                connection = connect(self.scheduler)
                self._executor, self._in_flight = self._stack.enter_context(connection)
            except WorkersError as error:
                raise UsageError(f"--scheduler: {error}") from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def start(self, several: bool) -> tuple[Executor | None, int | Callable[[], int]]:
        """Executor (None: this process) and number of chunks in flight.

        `several` says whether there is more than one chunk to work on.
        """
        if self._executor is None and several:
            count = self.workers or (1 if on_accelerator(self.device) else usable_cores())
            if count > 1:
                workers = LocalWorkers(count)
                self._stack.callback(workers.kill)
                self._executor, self._in_flight = workers, count + 2
        return self._executor, self._in_flight


def check_device(name: str) -> None:
    """Refuse a torch device that does not exist.

    Raises
    ------
    UsageError
    """
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]}") from None
