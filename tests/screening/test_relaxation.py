"""Relaxation under symmetry against ASE, and what becomes of crystals that cannot be relaxed."""

from __future__ import annotations

import re

import numpy as np
import pytest
import spglib
import torch
from ase.calculators.lj import LennardJones
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from energy_cases import mace_calculator
from screening_cases import AA, DIAMOND, GRAPHITE, SRS, crystal

from asexlatent.optimize.lbfgs import LBFGS
from asexlatent.screening import MACEEnergy, load_mace_model, relax, relax_with_calculator
from asexlatent.screening.ase_relaxation import crystal_from_cell, reduced_cell
from asexlatent.screening.site_network import SiteNetwork
from asexlatent.symmetry import CrystalError

FMAX = 0.02
PUCKERED = crystal(194, (2.55, 5.0), ("f", [0.03]))
CMCM = crystal(63, (2.53, 4.2, 6.4), ("c", [0.02]), ("c", [0.34]))
SODALITE = crystal(229, (4.6,), ("d", []))
TETRAGONAL = crystal(141, (2.54, 8.7), ("e", [0.29]))  # ths
MIXED = {
    "aa": AA,
    "srs": SRS,
    "puckered": PUCKERED,
    "cmcm": CMCM,
    "diamond": DIAMOND,
    "sodalite": SODALITE,
    "ths": TETRAGONAL,
}


@pytest.fixture(scope="module")
def model():
    return load_mace_model()


@pytest.fixture(scope="module")
def energy(model):
    return MACEEnergy(model)


@pytest.fixture(scope="module")
def relaxed(energy):
    return dict(zip(MIXED, relax(list(MIXED.values()), energy, fmax=FMAX), strict=True))


def measured(made, module):
    """Energy per atom, largest force, largest row of the stress, by MACE on the whole cell."""
    atoms = made.to_atoms()
    atoms.calc = mace_calculator(module)
    force = np.linalg.norm(atoms.get_forces(), axis=1).max()
    stress = np.linalg.norm(atoms.get_stress(voigt=False), axis=1).max()
    return atoms.get_potential_energy() / len(atoms), force, stress


def by_ase(made, module):
    atoms = made.to_atoms()
    atoms.calc = mace_calculator(module)
    atoms.set_constraint(FixSymmetry(atoms, symprec=1e-5))
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(FMAX, 300)
    return atoms


class TestAgainstASE:
    @pytest.mark.parametrize("name", MIXED)
    def test_same_energy(self, name, relaxed, model):
        atoms = by_ase(MIXED[name], model.module)
        theirs = atoms.get_potential_energy() / len(atoms)
        assert relaxed[name].status == "converged"
        assert relaxed[name].energy == pytest.approx(theirs, abs=1e-3)

    @pytest.mark.parametrize("name", MIXED)
    def test_what_is_reported_is_so(self, name, relaxed, model):
        result = relaxed[name]
        found = measured(result.crystal, model.module)
        assert (result.energy, result.fmax, result.smax) == pytest.approx(found, abs=1e-7)
        assert result.initial_energy == pytest.approx(
            measured(MIXED[name], model.module)[0], abs=1e-9
        )
        assert result.energy < result.initial_energy
        volume = result.crystal.volume / result.crystal.n_atoms
        assert result.fmax < FMAX
        assert result.smax * volume < FMAX

    @pytest.mark.parametrize("name", MIXED)
    def test_group_and_sites_stay(self, name, relaxed):
        before, after = MIXED[name], relaxed[name].crystal
        assert after.space_group == before.space_group
        assert [s.position for s in after.sites] == [s.position for s in before.sites]
        atoms = after.to_atoms()
        cell = (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers)
        assert spglib.get_symmetry_dataset(cell, symprec=1e-5).number == before.space_group

    def test_threshold_on_the_stress(self, energy):
        loose, tight = (relax([CMCM], energy, fmax=0.1, smax=smax)[0] for smax in (1.0, 1e-4))
        assert loose.status == tight.status == "converged"
        assert tight.smax < 1e-4 < loose.smax
        assert tight.steps > loose.steps

    def test_other_solvers_find_the_same(self, energy, relaxed):
        plain = relax([CMCM], energy, fmax=FMAX, solver=LBFGS())[0]
        assert plain.energy == pytest.approx(relaxed["cmcm"].energy, abs=1e-3)

    def test_what_is_relaxed_stays(self, energy, relaxed):
        made = relaxed["cmcm"].crystal
        again = relax([made], energy, fmax=FMAX)[0]
        assert (again.status, again.steps) == ("converged", 0)
        np.testing.assert_array_equal(again.crystal.free_variables, made.free_variables)


def test_one_by_one_is_the_same(energy, relaxed):
    alone = relax([SODALITE], energy, fmax=FMAX)[0]
    assert alone.energy == pytest.approx(relaxed["sodalite"].energy, abs=1e-9)


def test_few_steps(energy):
    result = relax([CMCM], energy, steps=2)[0]
    assert (result.status, result.steps) == ("step_limit", 2)
    assert result.energy < result.initial_energy


def test_progress(energy):
    calls = []
    relax([AA, DIAMOND, SRS], energy, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (3, 3)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_nothing(energy):
    assert relax([], energy) == []


@pytest.mark.parametrize("thresholds", [{"fmax": 0.0}, {"smax": -1.0}])
def test_thresholds_must_be_positive(energy, thresholds):
    with pytest.raises(ValueError, match="must be positive"):
        relax([AA], energy, **thresholds)


# ------------------------------------------------------------------------------ what goes wrong


class TestFailures:
    def test_a_crystal_that_flies_apart(self, energy, monkeypatch):
        def repulsion(self, vectors, graph):
            pairs = torch.exp(-vectors.norm(dim=1))
            total = pairs.new_zeros(len(graph.species) - len(graph.images.source))
            return total.index_add(0, graph.receivers, pairs)

        monkeypatch.setattr(SiteNetwork, "energies", repulsion)
        results = relax([AA, DIAMOND], energy, fmax=1e-4)
        for result, start in zip(results, (AA, DIAMOND), strict=True):
            assert result.status == "failed"
            assert np.isnan(result.energy)
            assert re.search("volume changed by a factor of|the crystal flew apart", result.reason)
            np.testing.assert_array_equal(result.crystal.free_variables, start.free_variables)

    def test_the_others_go_on(self, energy, relaxed):
        """Clashing atoms, an unknown element, an atom alone: each is told, nothing is lost."""
        clash = crystal(2, (3.0, 3.0, 3.0, 1.6, 1.6, 1.6), ("i", [0.01, 0.0, 0.0]))
        alone = crystal(221, (12.0,), ("a", []))
        boron = type(AA).build(191, (2.5, 3.3), [("B", "c", [])])
        results = relax([clash, SODALITE, boron, alone, AA], energy, fmax=FMAX)
        reasons = [result.reason for result in results]
        statuses = [result.status for result in results]
        assert statuses == ["failed", "converged", "failed", "failed", "converged"]
        assert "of the sum of their covalent radii" in reasons[0]
        assert "does not know B" in reasons[2]
        assert "no neighbour" in reasons[3]
        assert results[1].energy == pytest.approx(relaxed["sodalite"].energy, abs=1e-9)
        assert results[4].energy == pytest.approx(relaxed["aa"].energy, abs=1e-9)

    @pytest.mark.parametrize("what", ["raises", "nan"])
    def test_a_network_that_breaks_on_one_of_them(self, energy, relaxed, what, monkeypatch):
        real = SiteNetwork.energies

        def energies(self, vectors, graph):
            values = real(self, vectors, graph)
            diamond = vectors.norm(dim=1).sub(1.5446).abs().min() < 1e-3  # its bond, at the start
            if diamond and what == "raises":
                raise RuntimeError("out of memory, say")
            return values * torch.nan if diamond else values

        monkeypatch.setattr(SiteNetwork, "energies", energies)
        monkeypatch.setattr("asexlatent.screening.mace_energy._CPU_EDGES", 1)
        results = relax([AA, DIAMOND, SRS], energy, fmax=FMAX)
        assert [r.status for r in results] == ["converged", "failed", "converged"]
        expected = "out of memory, say" if what == "raises" else "not a finite number"
        assert expected in results[1].reason
        assert results[0].energy == pytest.approx(relaxed["aa"].energy, abs=1e-9)
        assert results[2].energy == pytest.approx(relaxed["srs"].energy, abs=1e-9)


# --------------------------------------------------------------------------- any calculator


class Choosy(LennardJones):
    """Gives energies for crystals of one atom in the cell, and raises for all others."""

    def calculate(self, atoms=None, properties=None, system_changes=None):
        if len(atoms) > 1:
            raise RuntimeError("too many atoms")
        super().calculate(atoms, properties, system_changes)


class TestAnyCalculator:
    def test_same_as_the_batch(self, model, relaxed):
        names = ["puckered", "cmcm", "srs"]
        results = relax_with_calculator(
            [MIXED[name] for name in names], model.calculator(), fmax=FMAX
        )
        for name, result in zip(names, results, strict=True):
            assert result.status == "converged"
            assert result.energy == pytest.approx(relaxed[name].energy, abs=1e-3)
            assert result.crystal.space_group == MIXED[name].space_group

    def test_primitive_and_conventional_cell(self, model):
        first, second = (
            relax_with_calculator([SODALITE], model.calculator(), fmax=1e-3, primitive=p)[0]
            for p in (True, False)
        )
        assert first.energy == pytest.approx(second.energy, abs=1e-6)
        np.testing.assert_allclose(
            first.crystal.free_variables, second.crystal.free_variables, atol=1e-3
        )

    def test_known_minimum(self):
        """fcc argon-like: nearest neighbours of the Lennard-Jones lattice at 1.0902 sigma."""
        fcc = crystal(225, (4.4,), ("a", []))
        calculator = LennardJones(sigma=2.5, epsilon=0.5, rc=25.0)
        result = relax_with_calculator([fcc], calculator, fmax=1e-4)[0]
        assert result.status == "converged"
        assert result.crystal.cell[0, 0] / 2**0.5 / 2.5 == pytest.approx(1.0902, abs=1e-3)
        assert result.energy / 0.5 == pytest.approx(-8.610, abs=0.05)

    def test_a_calculator_that_raises(self):
        fcc = crystal(225, (4.4,), ("a", []))
        calculator = Choosy(sigma=2.5, epsilon=0.5, rc=6.0)
        results = relax_with_calculator([fcc, GRAPHITE, fcc], calculator)
        assert [r.status for r in results] == ["converged", "failed", "converged"]
        assert results[1].reason == "RuntimeError: too many atoms"
        assert results[0].energy == results[2].energy

    def test_lost_symmetry_is_noticed(self):
        reduced = reduced_cell(CMCM)
        moved = reduced.atoms.copy()
        moved.positions[0, 0] += 0.01
        with pytest.raises(CrystalError, match="space group 63 was lost"):
            crystal_from_cell(CMCM, reduced._replace(atoms=moved))

    @pytest.mark.parametrize("name", MIXED)
    def test_there_and_back(self, name):
        made = MIXED[name]
        for primitive in (True, False):
            back = crystal_from_cell(made, reduced_cell(made, primitive))
            np.testing.assert_allclose(back.free_variables, made.free_variables, atol=1e-12)

    def test_primitive_cell_is_that_of_spglib(self):
        for made in MIXED.values():
            atoms = made.to_atoms()
            cell = (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers)
            lattice, _, numbers = spglib.find_primitive(cell, symprec=1e-4)
            found = reduced_cell(made).atoms
            assert len(found) == len(numbers)
            assert found.get_volume() == pytest.approx(abs(np.linalg.det(lattice)))
