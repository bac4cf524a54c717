"""Worker processes of this machine: an executor in which a death concerns one call only.

A `ProcessPoolExecutor` breaks as a whole when one of its processes dies, and needs scripts with a
guarded main module. Here each worker is a fresh Python that takes pickled calls from its standard
input; it ends with the process that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import IO, Any

_HEAD = struct.Struct("<Q")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkersError(RuntimeError):
    """Nothing can be run; the message is complete for a user."""


class WorkerDied(BrokenExecutor):
    """The process that ran this call died; the others go on."""


def on_accelerator(device: object) -> bool:
    """Whether a torch device, or the name of one, is not a CPU; None is the CPU.

    Free of torch, which a command that only starts workers need not load.
    """
    return str(device).partition(":")[0] not in ("cpu", "None")


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the share of its container."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as handle:
            quota, period = handle.read().split()
        cores = min(cores, max(int(float(quota) / float(period)), 1))
    except (OSError, ValueError):  # another system, or no limit ("max")
        pass
    return cores


class LocalWorkers(Executor):
    """Processes of this machine, one thread of arithmetic each.

    Functions and arguments are pickled; functions must be importable by name. A worker is
    started by its first call. Ctrl-C does not reach workers: whoever started them decides. They
    end with this process, also when it is killed.

    Parameters
    ----------
    count : int
        Processes; default: `usable_cores`.
    """

    def __init__(self, count: int | None = None):
        self._max_workers = usable_cores() if count is None else count
        if self._max_workers < 1:
            raise ValueError(f"there must be at least one worker, not {count}")
        self._calls: queue.SimpleQueue[tuple[Future, Any] | None] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._processes: set[_Process] = set()
        self._threads = [
            threading.Thread(target=self._serve, daemon=True, name=f"worker {k}")
            for k in range(self._max_workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """Run a function in a worker; the future's exception is `WorkerDied` if that dies."""
        if self._closed:
            raise RuntimeError("the workers were shut down")
        future: Future = Future()
        self._calls.put((future, (fn, args, kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; workers end after the last one."""
        if not self._closed:
            self._closed = True
            if cancel_futures:
                self._cancel()
            for _ in self._threads:
                self._calls.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def kill(self) -> None:
        """End the workers at once, whatever they are at."""
        self._closed = True
        self._cancel()
        for _ in self._threads:
            self._calls.put(None)
        with self._lock:
            for process in self._processes:
                process.kill()
        for thread in self._threads:
            thread.join()

    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        with self._lock:
            return [process.pid for process in self._processes]

    def _cancel(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                call = self._calls.get_nowait()
                if call is not None:
                    call[0].cancel()

    def _serve(self) -> None:
        """Life of the thread that looks after one worker."""
        process: _Process | None = None
        while (call := self._calls.get()) is not None:
            future, work = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                request = pickle.dumps(work, pickle.HIGHEST_PROTOCOL)
            except Exception as error:
                future.set_exception(WorkersError(f"it cannot be sent to a worker: {error}"))
                continue
            try:
                process = process or self._start()
                good, answer = process.ask(request)
            except (EOFError, OSError) as error:
                code = self._end(process)
                process = None
                future.set_exception(WorkerDied(_how(code) if code is not None else str(error)))
                continue
            except Exception as error:  # an answer that cannot be loaded here
                good, answer = False, error
            if good:
                future.set_result(answer)
            else:
                future.set_exception(answer)
        if process is not None:
            self._end(process)

    def _start(self) -> _Process:
        process = _Process()
        with self._lock:
            self._processes.add(process)
            if self._closed:
                process.kill()
        return process

    def _end(self, process: _Process | None) -> int | None:
        if process is None:
            return None
        with self._lock:
            self._processes.discard(process)
        return process.close()


class _Process:
    """A worker as its parent sees it."""

    def __init__(self) -> None:
        paths = [os.path.abspath(path) for path in sys.path if isinstance(path, str)]
        code = f"import sys; sys.path[:] = {paths!r}; from asexlatent.workers import serve; serve()"
        self._popen = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | dict.fromkeys(_THREAD_VARIABLES, "1"),
            start_new_session=True,  # Ctrl-C goes to the parent only
        )
        self.pid = self._popen.pid

    def ask(self, request: bytes) -> tuple[bool, Any]:
        _send(self._popen.stdin, request)
        return pickle.loads(_receive(self._popen.stdout))

    def kill(self) -> None:
        self._popen.kill()

    def close(self) -> int:
        """Let it end; its exit code."""
        for pipe in (self._popen.stdin, self._popen.stdout):
            with contextlib.suppress(OSError):  # it is gone already
                pipe.close()
        try:
            return self._popen.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()


def _how(code: int) -> str:
    """What became of a process, from its exit code."""
    if code == -signal.SIGKILL:
        return "killed, as systems do when memory runs out"
    if code < 0:
        return f"ended by signal {-code}"
    return f"ended with exit code {code}"


def _send(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(_HEAD.pack(len(message)))
    pipe.write(message)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    (size,) = _HEAD.unpack(_exactly(pipe, _HEAD.size))
    return _exactly(pipe, size)


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) != size:
        raise EOFError("the other end is gone")
    return data


# -- in the worker ----------------------------------------------------------------------------


def serve() -> None:
    """Answer calls until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        pipe = os.fdopen(os.dup(0), "rb")
        try:
            while True:
                requests.put(_receive(pipe))
        except (EOFError, OSError, struct.error):
            os._exit(0)  # the parent is gone, or wants no more: also in the middle of a call

    threading.Thread(target=read, daemon=True).start()
    while True:
        _send(answers, _answer(requests.get()))


def _answer(request: bytes) -> bytes:
    try:
        function, args, kwargs = pickle.loads(request)
        answer = True, function(*args, **kwargs)
        return pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> bytes:
    """An exception as the parent can load it."""
    import traceback

    text = "".join(traceback.format_exception(error))
    try:
        message = pickle.dumps((False, error))
        pickle.loads(message)
    except Exception:
        message = pickle.dumps((False, RuntimeError(f"in a worker: {text}")))
    return message
