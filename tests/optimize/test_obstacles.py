"""What symmetry alone forbids: true where it can be counted, silent about everything valid."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, graphene
from hypothesis import given, settings
from hypothesis import strategies as st

from asexlatent import LocalEnvironment, refine
from asexlatent.descriptor import MotifRule
from asexlatent.optimize.obstacles import obstacle
from asexlatent.symmetry import CrystalError, RandomCrystals, SymmetricCrystal, lattice_variables

SP2 = LocalEnvironment.named("sp2").rule


def crystal(group: int, sites: list[tuple[int, tuple[float, ...]]]) -> SymmetricCrystal:
    cell = lattice_variables(group).project(np.array([6.0, 6.0, 6.0, 1.5, 1.6, 1.5]))
    return SymmetricCrystal.build(group, cell, [("C", wp, np.array(xyz)) for wp, xyz in sites])


def test_an_atom_on_an_inversion_centre_has_no_odd_number_of_neighbours():
    reason = obstacle(crystal(2, [(0, (0.1, 0.2, 0.3)), (1, ())]), SP2)
    assert "1h of space group 2" in reason
    assert "3 neighbours" in reason


def test_an_odd_number_of_atoms_cannot_all_have_three_bonds():
    one = crystal(1, [(0, (0.1, 0.2, 0.3))])
    assert "two ends" in obstacle(one, SP2)
    assert obstacle(crystal(1, [(0, (0.1, 0.2, 0.3)), (0, (0.6, 0.1, 0.2))]), SP2) == ""
    # the primitive cell counts: 4 atoms of the centred cell, of which the lattice repeats 2
    assert obstacle(crystal(5, [(0, (0.1, 0.2, 0.3))]), SP2) == ""
    assert "two ends" in obstacle(crystal(5, [(2, (0.1,))]), SP2)


def test_four_bonds_need_no_even_number_of_atoms():
    four = LocalEnvironment.named("sp3").rule
    assert obstacle(crystal(1, [(0, (0.1, 0.2, 0.3))]), four) == ""
    assert obstacle(SymmetricCrystal.from_atoms(bulk("C", "diamond", cubic=True)), four) == ""


def test_nothing_is_said_where_two_neighbours_may_lie_in_one_direction():
    rule = MotifRule({"C": 3}, {"C-C": 1.85}, {"C-C": 0.5})
    assert obstacle(crystal(2, [(1, ())]), rule) == ""


def test_crystals_that_obey_the_rule_have_no_obstacle():
    sheet = graphene(a=2.46, vacuum=4.0)
    sheet.pbc = True
    assert obstacle(SymmetricCrystal.from_atoms(sheet), SP2) == ""
    for name in ("SiO4", "MgO6", "TiO6", "BN", "sp3", "sp", "sp2"):
        environment = LocalEnvironment.named(name)
        known = SymmetricCrystal.from_atoms(environment.structure)
        assert obstacle(known, environment.rule) == "", name


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_has_an_obstacle_never_becomes_valid(seed):
    """The plain loop without restarts knows of no obstacle."""
    source = RandomCrystals("C", max_sites=2, max_atoms=12, seed=seed)
    made = []
    for index in range(60):
        try:
            made.append(source.crystal(index))
        except CrystalError:
            continue
    barred = [c for c in made if obstacle(c, SP2)]
    assert barred
    assert not any(result.valid for result in refine(barred, steps=60))


@pytest.mark.parametrize("restarts", [0, 3])
def test_one_attempt_and_the_reason(restarts):
    barred = crystal(2, [(0, (0.1, 0.2, 0.3)), (1, ())])
    (result,) = refine([barred], restarts=restarts, steps=30)
    assert not result.valid
    assert ("1h of space group 2" in result.reason) == (restarts > 0)
    if restarts:
        (other,) = refine([barred], restarts=1, steps=30)
        assert result.steps == other.steps  # further attempts are not made
