"""What ASE's filters and constraints mean for the free variables."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms, FixBondLength, FixCartesian, FixCom, FixSymmetry
from ase.filters import ExpCellFilter, Filter, FrechetCellFilter, StrainFilter, UnitCellFilter
from ase.spacegroup import Spacegroup
from ase.spacegroup.symmetrize import check_symmetry
from optimize_cases import graphite, orthorhombic, puckered

from asexlatent.optimize import DescriptorCalculator, SymmetricDescriptorOptimizer
from asexlatent.symmetry import CrystalError, SymmetricCrystal


def optimizer(atoms, **options) -> SymmetricDescriptorOptimizer:
    return SymmetricDescriptorOptimizer(atoms, **{"logfile": None, **options})


def relaxed(atoms: Atoms, target=None, **options) -> tuple[np.ndarray, np.ndarray]:
    """Changes of the cell and of the fractional coordinates by twenty steps."""
    cell, scaled = atoms.cell.array.copy(), atoms.get_scaled_positions(wrap=False)
    optimizer(atoms if target is None else target, **options).run(fmax=1e-9, steps=20)
    return atoms.cell.array - cell, atoms.get_scaled_positions(wrap=False) - scaled


# ---------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize("filter_", [FrechetCellFilter, UnitCellFilter, ExpCellFilter])
@pytest.mark.filterwarnings("ignore:Use FrechetCellFilter")
def test_a_cell_filter_frees_what_atoms_alone_free(filter_):
    bare, filtered = orthorhombic().to_atoms(), orthorhombic().to_atoms()
    cell, scaled = relaxed(bare)
    assert np.abs(np.diag(cell))[:2].min() > 1e-3
    assert np.abs(scaled).max() > 1e-3
    relaxed(filtered, filter_(filtered))
    assert np.array_equal(bare.positions, filtered.positions)
    assert np.array_equal(bare.cell, filtered.cell)


@pytest.mark.parametrize("filter_", [FrechetCellFilter, UnitCellFilter])
@pytest.mark.parametrize("free", [(0,), (1,), (0, 1), (2,), (0, 1, 2), ()])
def test_a_mask_frees_the_strains_it_names(filter_, free):
    atoms = orthorhombic().to_atoms()
    mask = [int(k in free) for k in range(3)] + [0, 0, 0]
    cell, scaled = relaxed(atoms, filter_(atoms, mask=mask))
    moved = np.abs(np.diag(cell)) > 1e-6
    # nothing pulls on the third direction: the layers do not see each other
    assert moved.tolist() == [k in free and k != 2 for k in range(3)]
    assert np.abs(cell - np.diag(np.diag(cell))).max() < 1e-12
    assert np.abs(scaled).max() > 1e-3


def test_a_mask_means_the_axes_of_the_callers_cell():
    """The same crystal with its axes permuted: x of the mask is the caller's x."""
    atoms = orthorhombic().to_atoms()
    atoms.rotate(90, "z", rotate_cell=True)  # a along y, b along -x
    start = atoms.cell.lengths()
    optimizer(FrechetCellFilter(atoms, mask=[1, 0, 0, 0, 0, 0])).run(fmax=1e-9, steps=20)
    change = np.abs(atoms.cell.lengths() - start)
    assert change[1] > 1e-3
    assert change[[0, 2]].max() < 1e-9


def test_a_mask_that_cuts_through_what_symmetry_ties():
    atoms = graphite(2.38).to_atoms()
    with pytest.raises(CrystalError, match="separates xx, yy, which change together"):
        optimizer(FrechetCellFilter(atoms, mask=[1, 0, 1, 0, 0, 0]))
    cell, _ = relaxed(atoms, FrechetCellFilter(atoms, mask=[1, 1, 0, 0, 0, 0]))
    assert np.abs(cell[0, 0]) > 1e-2
    assert abs(cell[2, 2]) < 1e-12


def test_a_3x3_mask():
    atoms = orthorhombic().to_atoms()
    cell, _ = relaxed(atoms, FrechetCellFilter(atoms, mask=np.diag([1, 0, 0])))
    assert np.abs(cell[0, 0]) > 1e-3
    assert np.abs(cell[1:]).max() < 1e-12


def test_a_strain_filter_holds_the_fractional_coordinates():
    atoms = orthorhombic().to_atoms()
    cell, scaled = relaxed(atoms, StrainFilter(atoms))
    assert np.abs(np.diag(cell))[:2].min() > 1e-3
    assert np.abs(scaled).max() < 1e-12
    atoms = orthorhombic().to_atoms()
    cell, scaled = relaxed(atoms, StrainFilter(atoms, mask=[0, 1, 0, 0, 0, 0]))
    assert np.abs(cell[1, 1]) > 1e-3
    assert np.abs(cell[[0, 2]]).max() < 1e-12
    assert np.abs(scaled).max() < 1e-12


def test_fix_cell():
    for wrap in (lambda atoms: atoms, FrechetCellFilter):
        atoms = orthorhombic().to_atoms()
        cell, scaled = relaxed(atoms, wrap(atoms), fix_cell=True)
        assert np.abs(cell).max() == 0
        assert np.abs(scaled).max() > 1e-3


@pytest.mark.parametrize("solver", ["adam", "lm"])
def test_a_held_cell_stays_even_when_it_is_far_too_dense(solver):
    """Bounds would expand this cell (0.6 Å^3 per atom) if it were free."""
    crystal = SymmetricCrystal.build(63, [1.4, 2.4, 1.5], [("C", "c", [0.0]), ("C", "c", [0.36])])
    held, free = crystal.to_atoms(), crystal.to_atoms()
    options = {"solver": solver, "symprec": 1e-3}
    cell, scaled = relaxed(held, fix_cell=True, **options)
    assert np.abs(cell).max() == 0
    assert np.abs(scaled).max() > 1e-4
    assert free.get_volume() / len(free) < 1
    relaxed(free, **options)
    assert free.get_volume() / len(free) > 0.999


def test_the_threshold_counts_what_is_free():
    """With the cell held, run() is True although the cell would like to change."""
    atoms = orthorhombic().to_atoms()
    assert optimizer(atoms, fix_cell=True).run(fmax=0.05, steps=300) is True
    atoms.calc = DescriptorCalculator(extensive=True)
    assert np.abs(atoms.get_forces()).max() < 0.05
    assert np.abs(FrechetCellFilter(atoms).get_forces()).max() > 0.05


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda a: Filter(a, indices=[0]), "Filter is not supported: give the Atoms, or a Frechet"),
        (lambda a: FrechetCellFilter(a, hydrostatic_strain=True), "hydrostatic_strain=...) is not"),
        (lambda a: UnitCellFilter(a, constant_volume=True), "constant_volume=...) is not"),
        (lambda a: FrechetCellFilter(a, scalar_pressure=0.1), "scalar_pressure=...) is not"),
        (lambda a: StrainFilter(FrechetCellFilter(a)), "filter around a filter (StrainFilter)"),
        (lambda a: "POSCAR", "str is not supported"),
    ],
)
def test_what_has_no_meaning_here_is_refused_by_name(make, words):
    with pytest.raises(CrystalError) as caught:
        optimizer(make(orthorhombic().to_atoms()) if words[:3] != "str" else ["POSCAR"])
    assert words in str(caught.value)


# ------------------------------------------------------------------------------------ constraints


def orbits(atoms: Atoms) -> list[list[int]]:
    site = SymmetricDescriptorOptimizer(atoms, logfile=None)._set.frames[0].embedding.site
    return [np.flatnonzero(site == k).tolist() for k in range(site.max() + 1)]


@pytest.mark.parametrize("fix_cell", [False, True])
def test_fix_atoms_on_an_orbit_holds_its_fractional_coordinates(fix_cell):
    atoms = orthorhombic().to_atoms()
    held, free = orbits(atoms.copy())
    atoms.set_constraint(FixAtoms(held))
    cell, scaled = relaxed(atoms, fix_cell=fix_cell)
    assert np.abs(scaled[held]).max() < 1e-12
    assert np.abs(scaled[free]).max() > 1e-3
    assert (np.abs(cell).max() > 1e-3) == (not fix_cell)
    assert atoms.constraints[0].index.tolist() == held


def test_fix_atoms_on_part_of_an_orbit():
    atoms = orthorhombic().to_atoms()
    orbit, _ = orbits(atoms.copy())
    atoms.set_constraint(FixAtoms(orbit[:1]))
    with pytest.raises(CrystalError, match="holds 1 of the 4 atoms of an orbit") as caught:
        optimizer(atoms)
    assert str(orbit) in str(caught.value)
    # without symmetry every atom is its own orbit
    _, scaled = relaxed(atoms, space_group=1)
    assert np.abs(scaled[orbit[:1]]).max() < 1e-12
    assert np.abs(scaled[orbit[1:]]).max() > 1e-4


@pytest.mark.parametrize(
    "constraint", [FixCom(), FixBondLength(0, 1), FixCartesian(0, mask=(True, False, False))]
)
def test_other_constraints_are_refused_by_name(constraint):
    atoms = orthorhombic().to_atoms()
    atoms.set_constraint(constraint)
    with pytest.raises(CrystalError, match=f"constraint {type(constraint).__name__} is not"):
        optimizer(atoms)


def test_constraints_added_between_runs_count():
    atoms = orthorhombic().to_atoms()
    held, _ = orbits(atoms.copy())
    opt = optimizer(atoms, solver="adam")
    opt.run(fmax=1e-9, steps=3)
    before = atoms.get_scaled_positions(wrap=False)
    atoms.set_constraint(FixAtoms(held))
    opt.run(fmax=1e-9, steps=5)
    moved = np.abs(atoms.get_scaled_positions(wrap=False) - before).max(axis=1)
    assert moved[held].max() < 1e-12
    assert moved.max() > 1e-4


def test_a_declared_group_is_imposed():
    """An ASE Spacegroup in info, less symmetry than could be found; FixSymmetry."""
    atoms = graphite(2.4).to_atoms()
    assert optimizer(atoms.copy()).crystals[0].space_group == 194
    lower = atoms.copy()
    lower.info["spacegroup"] = Spacegroup(186)
    assert optimizer(lower).crystals[0].space_group == 186
    assert optimizer(lower, space_group=164).crystals[0].space_group == 164
    fixed = graphite(2.4).to_atoms()
    fixed.set_constraint(FixSymmetry(fixed))
    opt = optimizer(fixed)
    assert opt.crystals[0].space_group == 194
    opt.run(fmax=0.05, steps=5)
    assert type(fixed.constraints[0]) is FixSymmetry


def test_the_group_holds_throughout():
    atoms = puckered(0.04, a=2.5).to_atoms()
    opt = optimizer(atoms, solver="adam")
    seen = set()
    opt.attach(lambda: seen.add(check_symmetry(atoms, symprec=1e-4).number))
    opt.run(fmax=0.05, steps=15)
    assert seen == {194}


def test_a_primitive_cell_stays_one():
    atoms = bulk("C", "diamond", 3.8)
    opt = optimizer(atoms, environment="sp3")
    assert opt.run(fmax=0.05, steps=200) is True
    assert len(atoms) == 2
    assert atoms.cell.cellpar()[3:] == pytest.approx([60] * 3)
    assert atoms.get_distance(0, 1) == pytest.approx(1.545, abs=0.01)
    assert SymmetricCrystal.from_atoms(atoms).space_group == 227
