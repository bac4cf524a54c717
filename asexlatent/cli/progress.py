"""What the user sees while a run goes on: a bar, a few lines, a table at the end."""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asexlatent.optimize import Progress, Refinement, RefinementRun

SHOWN_FAILURES = 10
"""Failed candidates named on the terminal; the files name all of them."""


class Tally:
    """Running counts of a run."""

    def __init__(self) -> None:
        self.status: Counter[str] = Counter()
        self.valid: Counter[str] = Counter()
        self.paths: Counter[str] = Counter()
        self.initial: dict[str, list[float]] = {}
        self.losses: dict[str, list[float]] = {}

    def add(self, results: Sequence[Refinement]) -> None:
        """Count a chunk."""
        for result in results:
            status = str(result.status)
            self.status[status] += 1
            self.valid[status] += result.valid
            if result.path:
                self.paths[result.path] += 1
            if result.loss == result.loss:
                self.initial.setdefault(status, []).append(result.loss_initial)
                self.losses.setdefault(status, []).append(result.loss)

    @property
    def total(self) -> int:
        """Candidates counted."""
        return self.status.total()

    @property
    def n_valid(self) -> int:
        """Valid ones among them."""
        return self.valid.total()

    @property
    def n_refined(self) -> int:
        """Those that came out as crystals."""
        return sum(len(part) for status, part in self.losses.items() if status != "failed")

    def all_losses(self) -> tuple[list[float], list[float]]:
        """Losses before and after of all that were refined."""
        kept = [status for status in self.losses if status != "failed"]
        return (
            [loss for status in kept for loss in self.initial[status]],
            [loss for status in kept for loss in self.losses[status]],
        )

    def median(self) -> tuple[float | None, float | None]:
        """Median loss before and after; None without any."""
        before, after = self.all_losses()
        return _median(before), _median(after)

    def counts(self) -> dict[str, Any]:
        """Counts for ``summary.json``."""
        before, after = self.median()
        return {
            "candidates": self.total,
            **{status: self.status[status] for status in _STATUSES},
            "valid": self.n_valid,
            "valid_by_path": dict(self.paths),
            "median_loss_initial": before,
            "median_loss": after,
        }

    def table(self) -> str:
        """Plain text, one line per status."""
        lines = [f"{'status':<12}{'crystals':>9}{'valid':>9}{'median loss':>13}"]
        for status in _STATUSES:
            if self.status[status]:
                lines.append(self._line(status, self.status[status], self.valid[status], status))
        lines.append(self._line("all", self.total, self.n_valid, None))
        return "\n".join(lines)

    def _line(self, name: str, count: int, valid: int, status: str | None) -> str:
        losses = self.all_losses()[1] if status is None else self.losses.get(status, [])
        median = _median(losses) if status != "failed" else None
        shown = "-" if median is None else f"{median:.4g}"
        return f"{name:<12}{count:>9}{valid:>9}{shown:>13}"


_STATUSES = ("converged", "stalled", "step_limit", "failed")


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


_REFRESH = 0.3  # seconds


class Bar:
    """A tqdm bar of crystals done, valid so far, median loss; nothing where there is no terminal.

    Parameters
    ----------
    total
        Number of candidates, None if not known.
    quiet
        Show nothing.
    """

    def __init__(self, total: int | None, quiet: bool):
        from tqdm import tqdm

        self._finished = 0  # in whole chunks
        self._shown = 0.0  # when
        self._tally = Tally()
        self._bar = tqdm(
            total=total,
            unit="crystal",
            disable=True if quiet else None,
            file=sys.stderr,
            dynamic_ncols=True,
            leave=False,
        )

    def watch(self, state: Progress, run: RefinementRun) -> None:
        """Show the state of the chunk at work."""
        now = time.monotonic()
        if self._bar.disable or now - self._shown < _REFRESH:
            return
        self._shown = now
        median = _median(self._tally.all_losses()[1] + run.losses())
        self._show(self._finished + state.done, self._tally.n_valid + state.valid, median)

    def finish(self, tally: Tally) -> None:
        """Show that a chunk is done."""
        self._finished, self._tally = tally.total, tally
        if not self._bar.disable:
            self._show(tally.total, tally.n_valid, tally.median()[1])

    def close(self) -> None:
        """Clear the bar away."""
        self._bar.close()

    def _show(self, done: int, valid: int, median: float | None) -> None:
        loss = "" if median is None else f", median loss {median:.3g}"
        self._bar.set_postfix_str(f"{valid} valid{loss}", refresh=False)
        # A crystal whose descent has ended may begin again; the bar does not go back.
        self._bar.update(max(done - self._bar.n, 0))
        self._bar.refresh()
