"""Structures and transformations that the tests of this room share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, graphene, make_supercell
from ase.spacegroup import crystal

from asexlatent.topology import PeriodicGraph

HERE = Path(__file__).parent


def srs() -> Atoms:
    """The Si net of SrSi2 with carbon bond lengths: I4_132, 8a, bond a / sqrt(8)."""
    a = 1.46 * np.sqrt(8)
    return crystal("C", [(1 / 8, 1 / 8, 1 / 8)], spacegroup=214, cellpar=[a, a, a, 90, 90, 90])


def ths() -> Atoms:
    """The Si net of alpha-ThSi2 with carbon bond lengths."""
    cellpar = [2.53, 2.53, 8.76, 90, 90, 90]
    return crystal("C", [(0, 0, 0.4165)], spacegroup=141, setting=1, cellpar=cellpar)


def lonsdaleite() -> Atoms:
    sites = [(1 / 3, 2 / 3, 0.0625)]
    return crystal("C", sites, spacegroup=194, cellpar=[2.52, 2.52, 4.12, 90, 90, 120])


def graphite() -> Atoms:
    """AB stacking, two layers in the primitive cell."""
    sites = [(0, 0, 0.25), (1 / 3, 2 / 3, 0.25)]
    return crystal(["C", "C"], sites, spacegroup=194, cellpar=[2.46, 2.46, 6.70, 90, 90, 120])


def diamond() -> Atoms:
    return bulk("C", "diamond", a=3.567)


def graphene_layer() -> Atoms:
    layer = graphene("C2", a=2.46, vacuum=6)
    layer.pbc = True
    return layer


def polyyne() -> Atoms:
    return Atoms("C2", positions=[[0, 0, 0], [1.2, 0, 0]], cell=[2.6, 9, 9], pbc=True)


CRYSTALS = {
    "srs": srs,
    "ths": ths,
    "lon": lonsdaleite,
    "dia": diamond,
    "hcb": graphene_layer,
    "chain": polyyne,
}


def systre_keys() -> dict[str, str]:
    """Published keys by name."""
    lines = (HERE / "systre_keys.txt").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines if not line.startswith("#"))


def unimodular(rng: np.random.Generator, size: int, steps: int = 4) -> np.ndarray:
    """Random integer matrix of determinant 1 or -1."""
    matrix = np.eye(size, dtype=int)[rng.permutation(size)]
    if size > 1:
        for _ in range(steps):
            i, j = rng.choice(size, 2, replace=False)
            matrix[i] += rng.integers(-1, 2) * matrix[j]
    return matrix * rng.choice([-1, 1], size)


def scrambled(graph: PeriodicGraph, rng: np.random.Generator) -> PeriodicGraph:
    """The same net: other numbers, other cell for every vertex, other lattice basis."""
    n, d = graph.n_vertices, graph.dimension
    number = rng.permutation(n)
    moved = rng.integers(-2, 3, (n, d))
    i, j = graph.edges.T
    shifts = (graph.shifts + moved[i] - moved[j]) @ unimodular(rng, d)
    return PeriodicGraph.build(n, number[graph.edges], shifts)


def cover(graph: PeriodicGraph, size: tuple[int, ...]) -> PeriodicGraph:
    """The same net in a larger cell: ``size`` cells along each lattice direction."""
    cells = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).reshape(-1, len(size))
    place = np.array([int(np.prod(size[k + 1 :])) for k in range(len(size))])
    edges, shifts = [], []
    for (i, j), shift in zip(graph.edges, graph.shifts, strict=True):
        for cell in cells:
            over, inside = np.divmod(cell + shift, size)
            edges.append((i * len(cells) + cell @ place, j * len(cells) + inside @ place))
            shifts.append(over)
    return PeriodicGraph.build(graph.n_vertices * len(cells), np.array(edges), np.array(shifts))


def disguised(atoms: Atoms, rng: np.random.Generator, rattle: float = 0.02) -> Atoms:
    """The same crystal, drawn differently: supercell, cell setting, order, orientation, origin."""
    periodic = np.flatnonzero(atoms.pbc)
    multiple = np.eye(3, dtype=int)
    multiple[periodic, periodic] = rng.integers(1, 3, len(periodic))
    setting = np.eye(3, dtype=int)
    setting[np.ix_(periodic, periodic)] = unimodular(rng, len(periodic), steps=2)
    if np.linalg.det(setting) < 0:
        setting[periodic[0]] *= -1
    new = make_supercell(atoms, setting @ multiple)
    new = new[rng.permutation(len(new))]
    new.positions += rng.uniform(-rattle, rattle, new.positions.shape) / np.sqrt(3)
    new.positions += rng.uniform(-5, 5, 3)
    new.positions += rng.integers(-1, 2, new.positions.shape) * new.pbc @ new.cell[:]  # unwrapped
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))  # a rotation or a mirror image
    new.set_cell(new.cell[:] @ turn, scale_atoms=False)
    new.positions = new.positions @ turn
    return new
