"""Minimise an objective over the free variables of many crystals at once."""

from __future__ import annotations

from asexlatent.optimize.adam import Adam
from asexlatent.optimize.ase_optimizer import SymmetricDescriptorOptimizer
from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.calculator import DescriptorCalculator
from asexlatent.optimize.driver import BatchMinimizer, Status
from asexlatent.optimize.lbfgs import LBFGS
from asexlatent.optimize.lm import LevenbergMarquardt
from asexlatent.optimize.metric import generalized_gradient
from asexlatent.optimize.objective import DescriptorLoss, Evaluation, Objective
from asexlatent.optimize.refinement import RefinementRun, refine
from asexlatent.optimize.registry import BASELINES, SOLVERS, check_solver, make_solver
from asexlatent.optimize.result import Progress, Refinement
from asexlatent.optimize.solver import CellBounds, Solver, SolverState
from asexlatent.optimize.starts import Restarts

__all__ = [
    "BASELINES",
    "LBFGS",
    "SOLVERS",
    "Adam",
    "BatchMinimizer",
    "CellBounds",
    "CrystalBatch",
    "DescriptorCalculator",
    "DescriptorLoss",
    "Evaluation",
    "LevenbergMarquardt",
    "Objective",
    "Progress",
    "Refinement",
    "RefinementRun",
    "Restarts",
    "Solver",
    "SolverState",
    "Status",
    "SymmetricDescriptorOptimizer",
    "check_solver",
    "generalized_gradient",
    "make_solver",
    "refine",
]
