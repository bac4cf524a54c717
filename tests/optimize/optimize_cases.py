"""Crystals, a slow but independent evaluation of Eq. 1, and objectives with known answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import graphene
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from scipy.special import sph_harm_y, spherical_in

from asexlatent.optimize import CrystalBatch
from asexlatent.optimize.metric import Metric
from asexlatent.optimize.objective import Evaluation, Problem
from asexlatent.symmetry import SymmetricCrystal, lattice_variables, wyckoff_positions

RCUT, ALPHA, NMAX, LMAX = 2.1, 1.5, 2, 4

# One group of each lattice system, primitive and centred, polar and not.
GROUPS = (1, 2, 5, 14, 19, 62, 70, 88, 122, 136, 148, 152, 166, 186, 194, 205, 227, 230)


# -------------------------------------------------------------------------------------- crystals


def random_crystal(
    space_group: int,
    rng: np.random.Generator,
    n_sites: int = 2,
    volume_per_atom: float = 8.0,
    species: str = "C",
    max_atoms: int = 64,
) -> SymmetricCrystal:
    """Random crystal of one species whose atoms have neighbours, sites may be special."""
    lattice = lattice_variables(space_group)
    positions = [p for p in wyckoff_positions(space_group) if p.multiplicity <= max_atoms]
    positions = positions or [min(wyckoff_positions(space_group), key=lambda p: p.multiplicity)]
    sites = []
    for _ in range(n_sites):
        position = positions[rng.integers(len(positions))]
        taken = [p for _, p, _ in sites]
        if position.dof or position.index not in taken:
            sites.append((species, position.index, rng.random(position.dof)))
    multiplicity = {p.index: p.multiplicity for p in positions}
    size = (volume_per_atom * sum(multiplicity[index] for _, index, _ in sites)) ** (1 / 3)
    parameters = [*size * rng.uniform(0.9, 1.1, 3), *rng.uniform(1.4, 1.75, 3)]
    return SymmetricCrystal.build(space_group, lattice.project(parameters), sites)


def graphite(a: float = 2.46, c: float = 6.70) -> SymmetricCrystal:
    return SymmetricCrystal.build(194, [a, c], [("C", "b", []), ("C", "c", [])])


def puckered(z: float = 0.05, a: float = 2.6, c: float = 5.0) -> SymmetricCrystal:
    """Honeycomb sheets with one free height (4f of P6_3/mmc)."""
    return SymmetricCrystal.build(194, [a, c], [("C", "f", [0.25 + z])])


def orthorhombic(seed: int = 0, strain: float = 0.04) -> SymmetricCrystal:
    """Graphite in an orthorhombic subgroup (Cmcm), its three lengths and y disturbed."""
    rng = np.random.default_rng(seed)
    a, b, c = np.array([2.46, 2.46 * np.sqrt(3), 6.7]) * (1 + strain * rng.uniform(-1, 1, 3))
    y = np.array([0.0, 1 / 3]) + 0.03 * rng.uniform(-1, 1, 2)
    return SymmetricCrystal.build(63, [a, b, c], [("C", "c", [y[0]]), ("C", "c", [y[1]])])


def sheet(seed: int = 3, stdev: float = 0.04) -> Atoms:
    """A rattled supercell of graphite without any symmetry, 3D periodic."""
    atoms = graphene(a=2.46, size=(2, 1, 1), vacuum=None)
    atoms.cell[2, 2] = 4.0
    atoms.pbc = True
    atoms.positions += np.random.default_rng(seed).normal(0, stdev, (len(atoms), 3))
    return atoms


# ------------------------------------------------------------------------------------- the oracle


@cache
def _radial() -> tuple[NDArray, NDArray, NDArray]:
    """Nodes q, weights, and g_n(q) q^2 exp(-alpha q^2) of DESIGN's formulas."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    q, weights = 0.5 * RCUT * (nodes + 1), 0.5 * RCUT * weights
    a = np.arange(1, NMAX + 1)
    k = (2 * a + 5.0) * (2 * a + 6) * (2 * a + 7)
    overlap = np.sqrt(np.outer(k, k))
    total = a[:, None] + a[None]
    overlap /= (5.0 + total) * (6 + total) * (7 + total)
    value, vector = np.linalg.eigh(overlap)
    mixing = vector / np.sqrt(value) @ vector.T
    phi = (RCUT - q) ** (a[:, None] + 2) / np.sqrt(2 * RCUT ** (2 * a[:, None] + 7) / k[:, None])
    return q, weights, mixing @ phi * q**2 * np.exp(-ALPHA * q**2)


def spectrum(vectors: NDArray, weights: NDArray) -> NDArray:
    """Power spectrum (15,) of neighbours at vectors (P, 3), by quadrature and SciPy."""
    r = np.linalg.norm(vectors, axis=1)
    near = r < RCUT
    vectors, weights, r = vectors[near], weights[near], r[near]
    q, w, g = _radial()
    azimuth = np.arctan2(vectors[:, 1], vectors[:, 0])
    polar = np.arccos(np.clip(vectors[:, 2] / np.where(r > 0, r, 1), -1, 1))
    weights = weights * 0.5 * (1 + np.cos(np.pi * r / RCUT)) * 4 * np.pi * np.exp(-ALPHA * r**2)
    parts = np.zeros((NMAX, NMAX, LMAX + 1))
    for degree in range(LMAX + 1):
        bessel = spherical_in(degree, 2 * ALPHA * np.outer(r, q))
        integral = (g * w) @ bessel.T  # (n, P)
        m = np.arange(-degree, degree + 1)
        harmonics = sph_harm_y(degree, m[:, None], polar, azimuth)  # (m, P)
        c = (integral * weights) @ harmonics.T  # (n, m)
        factor = 2 * np.sqrt(2) * np.pi / np.sqrt(2 * degree + 1)
        parts[:, :, degree] = factor * (c @ c.conj().T).real
    return np.concatenate([parts[n, k] for n in range(NMAX) for k in range(n + 1)])


def spectra(atoms: Atoms, centers: NDArray | list[int]) -> NDArray:
    """Power spectra (M, 15) of some atoms, neighbours by ASE, weighted by atomic number."""
    i, j, vectors = neighbor_list("ijD", atoms, RCUT)
    weights = atoms.numbers[j].astype(float)
    return np.array([spectrum(vectors[i == k], weights[i == k]) for k in centers])


@cache
def sp2_target() -> NDArray:
    return spectra(graphite().to_atoms(), [0])[0]


def site_spectra(crystal: SymmetricCrystal) -> NDArray:
    """Power spectra (S, 15) of the inequivalent sites."""
    multiplicities = [site.position.multiplicity for site in crystal.sites]
    first = np.concatenate(([0], np.cumsum(multiplicities)[:-1]))
    return spectra(crystal.to_atoms(), first)


def eq1(crystal: SymmetricCrystal) -> float:
    """Eq. 1 of the method with the sp2 target."""
    return float(((site_spectra(crystal) - sp2_target()) ** 2).mean())


def linearize(problem: Problem, batch: CrystalBatch, variables: torch.Tensor) -> Evaluation:
    """Value, gradient and curvature."""
    return problem.evaluate(variables, Metric.at(batch, variables))


# ------------------------------------------------------------------- objectives with known answers


@dataclass(frozen=True)
class Quadratic:
    """strength * sum of (x - target)^2 over the variables of each crystal.

    It is no number where the first variable, a cell length, is below `hole`.
    """

    target: float = 0.0
    strength: float = 1.0
    hole: float = -np.inf

    def bind(self, batch: CrystalBatch) -> QuadraticProblem:
        return QuadraticProblem(self, batch, int(batch.variables_per_crystal().max()))


@dataclass(frozen=True)
class QuadraticProblem:
    objective: Quadratic
    batch: CrystalBatch
    n_slots: int

    def evaluate(self, variables: torch.Tensor, metric: Metric | None = None) -> Evaluation:
        batch, strength = self.batch, self.objective.strength
        distance = variables - self.objective.target
        value = distance.new_zeros(batch.n_crystals)
        value = value.index_add(0, batch.variable_crystal, strength * distance**2)
        lost = variables[batch.first_variable] < self.objective.hole
        value = torch.where(lost, torch.nan, value)
        gradient = torch.where(lost[batch.variable_crystal], torch.nan, 2 * strength * distance)
        curvature = None
        if metric is not None:
            curvature = value.new_zeros(batch.n_crystals, self.n_slots, self.n_slots)
            curvature[batch.variable_crystal, batch.slot, batch.slot] = 2 * strength
        return Evaluation(value, gradient, lost & False, curvature)

    def select(self, keep: torch.Tensor, batch: CrystalBatch) -> QuadraticProblem:
        return QuadraticProblem(self.objective, batch, self.n_slots)


@dataclass
class Recorded:
    """Another objective, and every place it was asked at with the values there."""

    objective: Any
    visits: list[tuple[NDArray, NDArray]]

    def bind(self, batch: CrystalBatch) -> Recorded:
        return Recorded(self.objective.bind(batch), self.visits)

    def evaluate(self, variables: torch.Tensor, metric: Metric | None = None) -> Evaluation:
        evaluation = self.objective.evaluate(variables, metric)
        self.visits.append((variables.detach().numpy().copy(), evaluation.value.numpy().copy()))
        return evaluation

    def select(self, keep: torch.Tensor, batch: CrystalBatch) -> Recorded:
        return Recorded(self.objective.select(keep, batch), self.visits)
