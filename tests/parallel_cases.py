"""Jobs that workers import by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Squares:
    """Squares of numbers; some numbers do harm to the process that works on them."""

    deadly: frozenset[int] = frozenset()
    once: dict[int, str] = field(default_factory=dict)  # dies the first time only: marker files
    broken: frozenset[int] = frozenset()
    wait: float = 0.0

    def work(self, items: Sequence[int]) -> list:
        time.sleep(self.wait)
        for item in items:
            marker = self.once.get(item)
            if marker is not None and not Path(marker).exists():
                Path(marker).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if item in self.deadly:
                os.kill(os.getpid(), signal.SIGSEGV)
            if item in self.broken:
                raise ArithmeticError(f"{item} is not liked")
        return [item**2 for item in items]

    def join(self, first: list, second: list) -> list:
        return first + second

    def lost(self, item: int, reason: str) -> list:
        return [reason]


def environment_of_a_worker() -> tuple[int, str, str]:
    print("this must not get between the answers")
    import torch

    return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.getcwd()


def sleep_and_note(path: str, seconds: float) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)
