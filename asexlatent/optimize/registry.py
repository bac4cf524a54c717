"""Solvers by name."""

from __future__ import annotations

from collections.abc import Callable

from asexlatent.optimize.adam import Adam
from asexlatent.optimize.lbfgs import LBFGS
from asexlatent.optimize.lm import LevenbergMarquardt
from asexlatent.optimize.solver import Solver

SOLVERS: dict[str, Callable[..., Solver]] = {
    "adam": Adam,
    "lbfgs": LBFGS,
    "lm": LevenbergMarquardt,
}

# Beyond this many free variables, normal equations cost more than they save.
SECOND_ORDER_LIMIT = 100


def make_solver(solver: str | Solver, n_variables: int = 0) -> Solver:
    """Return a solver: an instance as it is, a name with its default settings.

    Parameters
    ----------
    solver : str or Solver
        A name in `SOLVERS`.
    n_variables : int
        Largest number of free variables of a crystal that it will see. With hundreds, "lm" is
        replaced by "lbfgs", whose memory is linear in them; an instance never is.

    Raises
    ------
    ValueError
        For a name that is not in `SOLVERS`; lists them.
    """
    if not isinstance(solver, str):
        return solver
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}: choose from {', '.join(sorted(SOLVERS))}")
    if solver == "lm" and n_variables > SECOND_ORDER_LIMIT:
        solver = "lbfgs"
    return SOLVERS[solver]()
