"""Normalisers against their definition and against the tables that PyXtal ships."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import spglib

from asexlatent.symmetry import hall_number, wyckoff_positions
from asexlatent.symmetry.normalizer import (
    UNIT,
    _linear_parts,
    fit,
    normalizer,
    operations,
    primitive_basis,
    shifts,
)

ORTHORHOMBIC_AND_UP = range(16, 231)


def group_set(rotations: np.ndarray, translations: np.ndarray, unit: int) -> set:
    """Operations as a set that can be compared, translations wrapped."""
    shift = np.rint(translations * unit).astype(int) % unit
    return {
        (*map(int, r), *map(int, t))
        for r, t in zip(np.rint(rotations).reshape(-1, 9), shift, strict=True)
    }


@pytest.mark.parametrize("number", [1, 15, 43, 62, 88, 141, 152, 167, 206, 227, 230])
def test_operations_are_those_of_spglib(number):
    group = operations(number)
    theirs = spglib.get_symmetry_from_database(hall_number(number))
    expected = group_set(theirs["rotations"], theirs["translations"], UNIT)
    assert group_set(group.rotations, group.translations / UNIT, UNIT) == expected
    assert len(group.coset) * len(group.centring) == len(expected)


def test_every_element_maps_the_group_onto_itself():
    for number in ORTHORHOMBIC_AND_UP[::2]:
        group = operations(number)
        own = group_set(group.rotations, group.translations / UNIT, UNIT)
        elements = normalizer(number)
        assert np.array_equal(elements.rotations[0], np.eye(3))
        assert not elements.translations[0].any()
        for matrix, vector in zip(elements.rotations, elements.translations, strict=True):
            assert np.linalg.det(matrix) == pytest.approx(1)
            inverse = np.linalg.inv(matrix)
            rotations = matrix @ group.rotations @ inverse
            # x -> Q W Q^-1 (x - q) + Q w + q
            translations = group.translations / UNIT @ matrix.T + vector - rotations @ vector
            assert group_set(rotations, translations, UNIT) == own


def test_wyckoff_letters_are_permuted_as_pyxtal_tabulates():
    import pyxtal

    path = Path(pyxtal.__file__).parent / "database" / "wyckoff_sets.json"
    table = json.loads(path.read_text())
    for number in ORTHORHOMBIC_AND_UP:
        letters = [position.letter for position in wyckoff_positions(number)]
        # The tables count mirror images as equivalent, this package does not: add them here.
        proper = _linear_parts(143 <= number < 195)
        improper = tuple(tuple(-v for v in matrix) for matrix in proper)
        found = normalizer(number, proper + improper)
        ours = {
            tuple(letters[row[i]] for i in reversed(range(len(row)))) for row in found.positions
        }
        theirs = set()
        for text in table[str(number)]["Transformed WP"]:
            mapping = dict(zip(text.split(), reversed(letters), strict=True))
            theirs.add(tuple(mapping[letter] for letter in reversed(letters)))
        # A group of permutations contains the inverses: either reading of the table will do.
        assert ours == theirs, number


@pytest.mark.parametrize(
    ("number", "axes", "n"),
    [(1, (0, 1, 2), 1), (2, (), 8), (4, (1,), 4), (6, (0, 2), 2), (33, (2,), 4), (225, (), 2)],
)
def test_translations_of_known_groups(number, axes, n):
    # International Tables A, table 15.2: 1/2 along every fixed axis; Fm-3m has only (1/2 1/2 1/2).
    identity = (1, 0, 0, 0, 1, 0, 0, 0, 1)
    found = shifts(number, identity)
    assert operations(number).free_axes == axes
    assert len(found) == n
    assert not found[:, list(axes)].any()
    assert set(np.unique(found)) <= {0, UNIT // 2}


def test_low_symmetry_needs_a_choice_of_axes():
    with pytest.raises(ValueError, match="infinite"):
        normalizer(14)
    # In P2_1/c the glide is along c: a and c cannot be exchanged, a + c is as good as a.
    exchange = (0, 0, 1, 0, -1, 0, 1, 0, 0)
    assert len(shifts(14, exchange)) == 0
    shear = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1]])  # rows: a, b, c + a
    assert len(shifts(14, tuple(np.rint(np.linalg.inv(shear).T).astype(int).ravel()))) == 0
    assert len(shifts(14, tuple(np.rint(np.linalg.inv(shear.T).T).astype(int).ravel()))) == 8
    assert len(shifts(10, exchange)) == 8


def test_primitive_basis_spans_the_centring():
    for number in range(1, 231):
        group = operations(number)
        basis = primitive_basis(number)
        assert abs(np.linalg.det(basis)) == pytest.approx(1 / len(group.centring))
        inside = np.vstack([group.centring / UNIT, np.eye(3)]) @ np.linalg.inv(basis)
        assert np.allclose(inside, np.rint(inside))


def test_fit_tells_points_of_a_position_from_others():
    rng = np.random.default_rng(0)
    for number in (15, 63, 136, 166, 194, 227):
        for position in wyckoff_positions(number):
            free = rng.random(position.dof)
            point = position.representative(free) + rng.integers(-2, 3, 3)
            along, across = fit(position, point)
            assert np.allclose(across, np.rint(across))
            assert np.allclose((along - free) % 1 % (1 - 1e-9), 0, atol=1e-8)
            if position.dof < 3:
                across = fit(position, point + [0.0123, 0.0217, 0.0371])[1]
                assert not np.allclose(across, np.rint(across), atol=1e-3)
