from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, molecule
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE
from optimize_cases import graphite, orthorhombic, random_crystal, sheet, sp2_target, spectra

from asexlatent.descriptor import LocalEnvironment
from asexlatent.optimize import CrystalBatch, DescriptorCalculator, DescriptorLoss
from asexlatent.symmetry import SymmetricCrystal


def with_calculator(atoms: Atoms, **options) -> Atoms:
    atoms = atoms.copy()
    atoms.calc = DescriptorCalculator(**options)
    return atoms


def systems() -> dict[str, Atoms]:
    skewed = random_crystal(1, np.random.default_rng(0), n_sites=4).to_atoms()
    unwrapped = sheet()
    unwrapped.positions[0] += 3 * unwrapped.cell[0] - unwrapped.cell[1]
    layer = graphene(a=2.5, size=(2, 1, 1), vacuum=3.0)
    layer.rattle(0.05, seed=1)
    no_third_vector = layer.copy()
    no_third_vector.cell[2] = 0
    oblique = layer.copy()
    oblique.cell[2] = [1.0, 2.0, 0.7]
    cluster = molecule("C6H6")
    cluster = cluster[cluster.numbers == 6]
    wire = Atoms("C4", positions=[[0, 0, z] for z in (0, 1.3, 2.5, 3.9)], pbc=(0, 0, 1))
    wire.cell[2, 2] = 5.2
    wire.rattle(0.1, seed=2)
    return {
        "skewed": skewed,
        "unwrapped": unwrapped,
        "tiny cell": bulk("C", "diamond", 3.4),
        "layer": layer,
        "layer without third vector": no_third_vector,
        "layer with oblique third vector": oblique,
        "wire": wire,
        "cluster": cluster,
    }


@pytest.mark.parametrize("name", systems())
def test_energy_is_eq1_over_all_atoms(name):
    """Against SciPy quadrature with ASE's neighbours; directions without pbc have no images."""
    atoms = with_calculator(systems()[name])
    per_atom = ((spectra(atoms, range(len(atoms))) - sp2_target()) ** 2).mean(axis=1)
    assert atoms.get_potential_energy() == pytest.approx(per_atom.mean(), rel=1e-9)
    energies = atoms.get_potential_energies()
    assert energies == pytest.approx(per_atom / len(atoms), rel=1e-9)
    assert energies.sum() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    extensive = with_calculator(atoms, extensive=True)
    assert extensive.get_potential_energy() == pytest.approx(per_atom.sum(), rel=1e-9)
    assert extensive.get_forces() == pytest.approx(len(atoms) * atoms.get_forces(), rel=1e-9)


@pytest.mark.parametrize("name", systems())
def test_forces_by_finite_differences(name):
    atoms = with_calculator(systems()[name], extensive=True)
    forces = atoms.get_forces()
    numeric = calculate_numerical_forces(atoms, eps=1e-5)
    assert forces == pytest.approx(numeric, abs=1e-6 * (1 + np.abs(forces).max()))
    assert forces.sum(axis=0) == pytest.approx(np.zeros(3), abs=1e-9 * (1 + np.abs(forces).max()))


@pytest.mark.parametrize("name", ["skewed", "unwrapped", "tiny cell"])
def test_stress_by_finite_differences(name):
    atoms = with_calculator(systems()[name], extensive=True)
    stress = atoms.get_stress()
    numeric = calculate_numerical_stress(atoms, eps=1e-5)
    assert stress == pytest.approx(numeric, abs=1e-6 * (1 + np.abs(stress).max()))


def test_equals_the_loss_weighted_by_multiplicity(sp2):
    crystals = [random_crystal(g, np.random.default_rng(g)) for g in (62, 166, 205)]
    batch = CrystalBatch.from_crystals(crystals)
    problem = DescriptorLoss(sp2, site_weights="multiplicity").bind(batch)
    values = problem.evaluate(batch.variables).value.tolist()
    energies = [with_calculator(c.to_atoms()).get_potential_energy() for c in crystals]
    assert values == pytest.approx(energies, rel=1e-10)


def test_a_layer_is_the_crystal_with_much_room():
    layer = with_calculator(systems()["layer"])
    crystal = layer.copy()
    crystal.pbc = True
    crystal.cell[2, 2] = 30
    crystal = with_calculator(crystal)
    assert layer.get_potential_energy() == pytest.approx(crystal.get_potential_energy())
    assert layer.get_forces() == pytest.approx(crystal.get_forces(), abs=1e-12)


def test_graphite_is_the_minimum():
    atoms = with_calculator(graphite().to_atoms())
    assert atoms.get_potential_energy() < 1e-20
    assert np.abs(atoms.get_forces()).max() < 1e-10
    assert np.abs(atoms.get_stress()).max() < 1e-10


def test_other_species_and_missing_cells_are_clear_errors():
    with pytest.raises(ValueError, match="crystal contains Si, but environment sp2 has only C"):
        with_calculator(bulk("Si")).get_potential_energy()
    flat = Atoms("C2", positions=[[0, 0, 0], [1.4, 0, 0]], pbc=True)
    with pytest.raises(ValueError, match="cell"):
        with_calculator(flat).get_potential_energy()


def test_a_change_of_the_atoms_is_seen():
    atoms = with_calculator(sheet())
    before = atoms.get_potential_energy()
    atoms.rattle(0.02, seed=0)
    changed = atoms.get_potential_energy()
    assert changed != pytest.approx(before, rel=1e-6)
    assert with_calculator(atoms).get_potential_energy() == pytest.approx(changed, rel=1e-12)


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
def test_ase_optimizers_lower_the_loss(optimizer):
    # The room above and below the sheet is not seen, so only the sheet's own cell is free.
    atoms = with_calculator(sheet(), environment=LocalEnvironment.named("sp2"), extensive=True)
    start = atoms.get_potential_energy()
    free = FrechetCellFilter(atoms, mask=[1, 1, 0, 0, 0, 1])
    assert optimizer(free, logfile=None).run(fmax=0.05, steps=300)
    assert atoms.get_potential_energy() < 1e-3 * start
    distances = atoms.get_all_distances(mic=True)
    bonds = distances[(distances > 0.5) & (distances < 1.6)]
    assert bonds == pytest.approx(1.42, abs=0.01)


def test_fix_symmetry_holds_the_group():
    crystal = orthorhombic(seed=1)
    atoms = with_calculator(crystal.to_atoms(), extensive=True)
    atoms.set_constraint(FixSymmetry(atoms))
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.05, steps=300)
    assert atoms.get_potential_energy() < 1e-3
    found = SymmetricCrystal.from_atoms(atoms, space_group=63)
    assert found.space_group == 63
