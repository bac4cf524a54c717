"""Small MACE models with random weights, crystals to ask them, and MACE's own answers."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from asexlatent.screening.mace_model import build_mace
from asexlatent.symmetry import SymmetricCrystal, lattice_variables, wyckoff_positions

warnings.filterwarnings("ignore", module="(mace|e3nn|torch).*")

# One group of each lattice system, primitive and centred, polar and not, chiral and not.
GROUPS = (1, 2, 5, 14, 19, 62, 70, 88, 122, 136, 148, 152, 166, 186, 194, 205, 227, 230)

ARCHITECTURE = {
    "r_max": 2.8,
    "num_bessel": 4,
    "num_polynomial_cutoff": 5,
    "max_ell": 2,
    "interaction_cls": "RealAgnosticResidualInteractionBlock",
    "interaction_cls_first": "RealAgnosticInteractionBlock",
    "num_interactions": 2,
    "hidden_irreps": "4x0e + 4x1o",
    "MLP_irreps": "4x0e",
    "atomic_energies": [-1.0, -2.0],
    "avg_num_neighbors": 12.0,
    "atomic_numbers": [6, 14],
    "correlation": 2,
    "gate": "silu",
    "pair_repulsion": True,
    "radial_MLP": [8],
    "atomic_inter_scale": 0.5,
    "atomic_inter_shift": 0.1,
}


def make_model(seed: int = 0, **changes: Any) -> torch.nn.Module:
    """A model whose weights are random and large enough for its layers to matter."""
    torch.manual_seed(seed)
    module = build_mace({**ARCHITECTURE, **changes})
    return module.eval().requires_grad_(False)


@cache
def small_model() -> torch.nn.Module:
    return make_model()


def random_crystal(
    group: int, seed: int, species: tuple[str, ...] = ("C", "Si"), volume: float = 9.0
) -> SymmetricCrystal:
    """Random crystal with one site of each species, at most 16 atoms of each."""
    rng = np.random.default_rng([group, seed])
    lattice = lattice_variables(group)
    positions = [p for p in wyckoff_positions(group) if p.multiplicity <= 16]
    sites: list[tuple[str, Any, NDArray[np.float64]]] = []
    for name in species:
        free = [p for p in positions if p.dof or p.index not in [s[1] for s in sites]]
        position = free[rng.integers(len(free))]
        sites.append((name, position.index, rng.random(position.dof)))
    multiplicity = {p.index: p.multiplicity for p in positions}
    size = (volume * sum(multiplicity[index] for _, index, _ in sites)) ** (1 / 3)
    parameters = [*size * rng.uniform(0.9, 1.1, 3), *rng.uniform(1.4, 1.75, 3)]
    return SymmetricCrystal.build(group, lattice.project(parameters), sites)


def roomy_crystal(group: int, seed: int, nearest: float = 1.0, **options: Any) -> SymmetricCrystal:
    """The first of some random crystals whose atoms are not on top of each other."""
    for k in range(100):
        crystal = random_crystal(group, 100 * seed + k, **options)
        distances = neighbor_list("d", crystal.to_atoms(), 2 * nearest)
        if distances.min(initial=np.inf) > nearest:
            return crystal
    raise AssertionError(f"no roomy crystal in group {group}")


@cache
def mace_calculator(module: torch.nn.Module, **options: Any) -> Any:
    """MACE's own ASE calculator, float64."""
    from mace.calculators import MACECalculator

    return MACECalculator(models=[module], device="cpu", default_dtype="float64", **options)


def energy_per_atom(atoms: Atoms, calculator: Any) -> float:
    copy = atoms.copy()
    copy.calc = calculator
    return copy.get_potential_energy() / len(copy)


def slopes(crystal: SymmetricCrystal, value: Any, h: float = 1e-4) -> NDArray[np.float64]:
    """Derivative of value(crystal) for the free variables, by central differences."""
    start = crystal.free_variables
    result = []
    for k in range(start.size):
        step = h * np.eye(start.size)[k]
        above, below = (crystal.with_free_variables(start + s) for s in (step, -step))
        result.append((value(above) - value(below)) / (2 * h))
    return np.array(result)
