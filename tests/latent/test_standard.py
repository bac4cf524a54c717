"""Standard descriptions: the same crystal, one condition for all equivalent ones, a way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list
from latent_cases import random_crystals

from asexlatent.latent import Condition, standardize
from asexlatent.latent.columns import FreeVariableMap, to_columns
from asexlatent.latent.standard import standard_form
from asexlatent.symmetry import RandomCrystals, SymmetricCrystal
from asexlatent.symmetry.normalizer import normalizer

ALL_KINDS = tuple(range(1, 231, 6))


def fingerprint(crystal: SymmetricCrystal) -> np.ndarray:
    """Sorted distances up to the same length, per atom: the crystal without any description."""
    atoms = crystal.to_atoms()
    reach = 1.5 * (atoms.get_volume() / len(atoms)) ** (1 / 3)
    return np.sort(neighbor_list("d", atoms, reach))


def same_crystal(one: SymmetricCrystal, other: SymmetricCrystal) -> bool:
    a, b = fingerprint(one), fingerprint(other)
    n = min(len(a), len(b)) - 2  # a pair at the very end of the range may be in or out
    return abs(len(a) - len(b)) <= 2 and np.allclose(a[:n], b[:n], atol=1e-4)


def decoded(columns: np.ndarray, condition: Condition) -> SymmetricCrystal:
    free = FreeVariableMap.of([condition])(torch.as_tensor(columns)[None]).numpy()
    return condition.crystal(free)


@pytest.mark.parametrize("crystal", random_crystals(45, groups=ALL_KINDS), ids=str)
def test_same_crystal_and_the_way_back(crystal):
    condition = Condition.from_crystal(crystal)
    standard = standardize(crystal)
    assert same_crystal(crystal, standard)
    assert Condition.from_crystal(standard) == standard_form(condition).condition
    again = decoded(to_columns(standard, 4), condition)
    assert Condition.from_crystal(again) == condition
    assert same_crystal(crystal, again)
    np.testing.assert_allclose(
        standardize(again).free_variables, standard.free_variables, atol=1e-5
    )


@pytest.mark.parametrize("group", [19, 25, 47, 62, 70, 99, 123, 148, 162, 191, 199, 225])
def test_equivalent_descriptions_become_one(group):
    """The normaliser turns a crystal into descriptions with other letters and axes."""
    crystal = RandomCrystals("C", [group], max_sites=3, max_atoms=96, seed=3).crystal(0)
    standard = standardize(crystal)
    ways = normalizer(group)
    for k in range(min(len(ways.rotations), 8)):
        turned = described(crystal, ways.rotations[k], ways.translations[k], ways.positions[k])
        assert same_crystal(crystal, turned)
        found = standardize(turned)
        assert Condition.from_crystal(found) == Condition.from_crystal(standard)
        np.testing.assert_allclose(found.free_variables, standard.free_variables, atol=1e-5)


def described(
    crystal: SymmetricCrystal, rotation: np.ndarray, shift: np.ndarray, letters: np.ndarray
) -> SymmetricCrystal:
    """Apply an element of the normaliser, by projecting onto the new Wyckoff positions."""
    from asexlatent.symmetry import parameters_from_cell, wyckoff_positions

    cell = np.linalg.inv(rotation.T) @ crystal.cell
    sites = []
    for site in crystal.sites:
        position = wyckoff_positions(crystal.space_group)[letters[site.position.index]]
        point = rotation @ site.position.representative(site.free) + shift
        projection = position.project(point, cell)
        assert projection.distance < 1e-6
        sites.append((site.species, position.index, projection.free))
    free = crystal.lattice.project(parameters_from_cell(cell))
    return SymmetricCrystal.build(crystal.space_group, free, sites)


def test_equal_sites_in_any_order():
    crystal = SymmetricCrystal.build(
        62,
        [4.0, 5.0, 6.0],
        [("C", 0, [0.1, 0.2, 0.3]), ("Si", 1, [0.4, 0.1]), ("C", 0, [0.3, 0.4, 0.1])],
    )
    other = SymmetricCrystal(62, crystal.cell_free, crystal.sites[::-1])
    one, two = standardize(crystal), standardize(other)
    np.testing.assert_allclose(one.free_variables, two.free_variables, atol=1e-9)
    assert [site.species for site in one.sites] == ["C", "C", "Si"]
    assert standard_form(Condition.from_crystal(other)).condition == Condition.from_crystal(one)
