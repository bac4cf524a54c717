from __future__ import annotations

import numpy as np
import pytest
import spglib

from asexlatent.symmetry import wyckoff_positions
from asexlatent.symmetry.site_symmetry import can_have_neighbors, site_symmetry

# Point groups under which n directions can be permuted among themselves, worked out by hand from
# the sizes of the orbits: on each half axis one (or two where the axis is turned around), in
# mirror planes and in general directions as many as wanted.
ALLOWED = {
    1: "1 2 3 4 6 m mm2 3m 4mm 6mm",
    3: "1 2 3 m mm2 32 3m -6 -6m2",
    4: "1 -1 2 m 2/m 222 mm2 mmm 4 -4 4/m 422 4mm -42m 4/mmm 3 3m 23 -43m",
    6: (
        "1 -1 2 m 2/m 222 mm2 mmm 4 -4 4/m 422 4mm -42m 4/mmm 3 -3 32 3m -3m 6 -6 6/m 622 6mm "
        "-6m2 6/mmm 23 m-3 432 -43m m-3m"
    ),
}

ALL = [p for group in range(1, 231) for p in wyckoff_positions(group)]


def point_group(position) -> str:
    return spglib.get_pointgroup(site_symmetry(position))[0].strip()


def test_orders_are_those_of_the_tables():
    for position in ALL:
        general = wyckoff_positions(position.space_group)[0]
        order = len(site_symmetry(position))
        assert order * position.multiplicity == general.multiplicity


@pytest.mark.parametrize("count", sorted(ALLOWED))
def test_neighbors_against_point_groups(count):
    allowed = ALLOWED[count].split()
    for position in ALL[:: 1 if count == 3 else 7]:
        name = point_group(position)
        assert can_have_neighbors(position, count) == (name in allowed), (position, name)


def test_known_sites():
    graphite_b, graphite_c = (
        next(p for p in wyckoff_positions(194) if p.letter == letter) for letter in "bc"
    )
    assert can_have_neighbors(graphite_b, 3)
    assert can_have_neighbors(graphite_c, 3)
    diamond = next(p for p in wyckoff_positions(227) if p.letter == "a")
    assert can_have_neighbors(diamond, 4)
    assert not can_have_neighbors(diamond, 3)
    rock_salt = next(p for p in wyckoff_positions(225) if p.letter == "a")
    assert [n for n in range(1, 10) if can_have_neighbors(rock_salt, n)] == [6, 8]


def test_general_positions_allow_anything():
    for group in (1, 47, 194, 230):
        position = wyckoff_positions(group)[0]
        assert site_symmetry(position).shape == (1, 3, 3)
        assert all(can_have_neighbors(position, n) for n in range(1, 13))


def test_group_is_closed():
    for position in ALL[::37]:
        rotations = {tuple(r.ravel()) for r in site_symmetry(position)}
        for a in site_symmetry(position):
            assert {tuple(np.ravel(a @ b)) for b in site_symmetry(position)} == rotations
