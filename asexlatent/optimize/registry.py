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

# Solvers that take one crystal at a time (`asexlatent.optimize.scipy_baseline`), for comparison.
BASELINES = {"scipy-nelder-mead": "Nelder-Mead", "scipy-lbfgsb": "L-BFGS-B"}

# Beyond this many free variables, normal equations cost more than they save.
SECOND_ORDER_LIMIT = 100


def check_solver(solver: str | Solver) -> None:
    """Raise ValueError for a name that is neither in `SOLVERS` nor in `BASELINES`."""
    if solver not in BASELINES:
        make_solver(solver)


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
        known = ", ".join(sorted(SOLVERS))
        if solver in BASELINES:
            raise ValueError(f"{solver} works in refine() only; here choose from {known}")
        raise ValueError(
            f"unknown solver {solver!r}: choose from {known}, or for comparison "
            f"{', '.join(BASELINES)}"
        )
    if solver == "lm" and n_variables > SECOND_ORDER_LIMIT:
        solver = "lbfgs"
    return SOLVERS[solver]()
