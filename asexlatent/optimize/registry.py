"""Solvers by name."""

from __future__ import annotations

from collections.abc import Callable

from asexlatent.optimize.adam import Adam
from asexlatent.optimize.lm import LevenbergMarquardt
from asexlatent.optimize.solver import Solver

SOLVERS: dict[str, Callable[..., Solver]] = {"adam": Adam, "lm": LevenbergMarquardt}


def make_solver(solver: str | Solver, **settings: object) -> Solver:
    """Return a solver: an instance as it is, a name with its default settings.

    Raises
    ------
    ValueError
        For a name that is not in `SOLVERS`; lists them.
    """
    if not isinstance(solver, str):
        return solver
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}: choose from {', '.join(sorted(SOLVERS))}")
    return SOLVERS[solver](**settings)
