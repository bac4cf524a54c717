"""Wyckoff positions against PyXtal's and spglib's own answers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from asexlatent.symmetry import (
    CrystalError,
    hall_number,
    lattice_variables,
    wyckoff_positions,
)
from asexlatent.symmetry.lattice import cell_from_parameters

ALL_GROUPS = range(1, 231)


def some_cell(space_group: int, rng: np.random.Generator) -> np.ndarray:
    lattice = lattice_variables(space_group)
    parameters = [*rng.uniform(3, 9, 3), *rng.uniform(1.2, 1.9, 3)]
    return cell_from_parameters(lattice.parameters(lattice.project(parameters)))


def test_positions_agree_with_pyxtal():
    from pyxtal.symmetry import Group

    rng = np.random.default_rng(0)
    for number in ALL_GROUPS:
        group = Group(number)
        positions = wyckoff_positions(number)
        assert len(positions) == len(group.Wyckoff_positions)
        for ours, theirs in zip(positions, group.Wyckoff_positions, strict=True):
            assert ours.label == theirs.get_label()
            assert ours.dof == theirs.get_dof()
            free = rng.random(ours.dof)
            xyz = np.zeros(3)
            xyz[ours.variables] = free
            expected = np.array([operation.operate(xyz) for operation in theirs.ops])
            assert np.allclose(ours.expand(free), expected, atol=1e-12)
            assert np.allclose(ours.representative(free), expected[0], atol=1e-12)


def test_orbits_are_closed_under_the_group_of_spglib():
    import spglib

    rng = np.random.default_rng(1)
    for number in ALL_GROUPS:
        symmetry = spglib.get_symmetry_from_database(hall_number(number))
        general = wyckoff_positions(number)[0]
        assert len(symmetry["rotations"]) == general.multiplicity
        for position in wyckoff_positions(number):
            orbit = position.expand(rng.random(position.dof))
            images = symmetry["rotations"] @ orbit[0] + symmetry["translations"]
            difference = images[:, None] - orbit[None]
            same = np.abs(difference - np.rint(difference)).max(axis=2) < 1e-9
            assert same.any(axis=1).all()  # every image is an atom of the orbit
            assert same.any(axis=0).all()  # and every atom of the orbit an image


def test_hall_numbers_are_those_of_pyxtal():
    from pyxtal.symmetry import pyxtal_hall_numbers

    assert [hall_number(number) for number in ALL_GROUPS] == list(pyxtal_hall_numbers)


def test_positions_are_shared_and_pickle_to_themselves():
    position = wyckoff_positions(229)[3]
    assert wyckoff_positions(229)[3] is position
    assert pickle.loads(pickle.dumps(position)) is position
    with pytest.raises(ValueError, match="read-only"):
        position.rotations[0, 0, 0] = 2


@pytest.mark.parametrize("number", [0, 231, -1, 3.5, "12", True])
def test_a_space_group_that_does_not_exist(number):
    with pytest.raises(CrystalError, match="1 to 230"):
        wyckoff_positions(number)
