"""Minimise an objective over the free variables of many crystals at once."""

from __future__ import annotations

from asexlatent.optimize.adam import Adam
from asexlatent.optimize.ase_optimizer import SymmetricDescriptorOptimizer
from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.calculator import DescriptorCalculator
from asexlatent.optimize.driver import BatchMinimizer, Status
from asexlatent.optimize.metric import generalized_gradient
from asexlatent.optimize.objective import DescriptorLoss, Evaluation, Objective
from asexlatent.optimize.refine import Progress, Refinement, RefinementRun, refine
from asexlatent.optimize.registry import SOLVERS, make_solver
from asexlatent.optimize.solver import CellBounds, Solver, SolverState

__all__ = [
    "SOLVERS",
    "Adam",
    "BatchMinimizer",
    "CellBounds",
    "CrystalBatch",
    "DescriptorCalculator",
    "DescriptorLoss",
    "Evaluation",
    "Objective",
    "Progress",
    "Refinement",
    "RefinementRun",
    "Solver",
    "SolverState",
    "Status",
    "SymmetricDescriptorOptimizer",
    "generalized_gradient",
    "make_solver",
    "refine",
]
