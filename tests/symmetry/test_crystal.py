"""The crystal object itself."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from symmetry_cases import make_crystal

from asexlatent.symmetry import CrystalError, Site, SymmetricCrystal, wyckoff_positions


@pytest.fixture
def graphite() -> SymmetricCrystal:
    return SymmetricCrystal.build(
        194, (2.46, 6.7), [("C", "2b", []), ("C", "c", [])], info={"name": "graphite"}
    )


def test_graphite(graphite):
    assert graphite.space_group == 194
    assert graphite.hall_number == 488
    assert graphite.wyckoffs == ["2b", "2c"]
    assert graphite.n_atoms == 4
    assert graphite.n_sites == 2
    assert graphite.free_variables == pytest.approx([2.46, 6.7])
    atoms = graphite.to_atoms()
    assert atoms.info == {"name": "graphite"}
    assert atoms.get_volume() == pytest.approx(graphite.volume)
    distances = atoms.get_all_distances(mic=True)
    assert np.sort(distances[0])[1] == pytest.approx(2.46 / np.sqrt(3))


def test_a_large_cubic_crystal_has_few_variables():
    """288 atoms from ten numbers: three general-plane sites of Im-3m."""
    rng = np.random.default_rng(0)
    crystal = SymmetricCrystal.build(229, [14.0], [("C", "96l", rng.random(3))] * 3)
    assert crystal.n_atoms == 288
    assert crystal.free_variables.shape == (10,)


def test_atoms_come_site_after_site():
    crystal = make_crystal(62, np.random.default_rng(3))
    atoms = crystal.to_atoms()
    assert atoms.get_chemical_symbols() == crystal.symbols
    start = 0
    for site in crystal.sites:
        stop = start + site.position.multiplicity
        assert np.allclose(crystal.scaled_positions()[start:stop], site.expand())
        start = stop
    assert start == len(atoms) == crystal.n_atoms


def test_free_variables_go_in_and_out():
    for group in (1, 15, 62, 139, 166, 227):
        crystal = make_crystal(group, np.random.default_rng(group))
        variables = crystal.free_variables
        moved = crystal.with_free_variables(variables * 1.01)
        assert moved.free_variables == pytest.approx(variables * 1.01)
        assert crystal.free_variables == pytest.approx(variables)  # the first one is as it was
        assert moved.wyckoffs == crystal.wyckoffs
        with pytest.raises(CrystalError, match="free variables"):
            crystal.with_free_variables(variables[:-1])


def test_nothing_can_be_changed_in_place(graphite):
    with pytest.raises(AttributeError):
        graphite.space_group = 1
    with pytest.raises(ValueError, match="read-only"):
        graphite.cell_free[0] = 3
    with pytest.raises(ValueError, match="read-only"):
        graphite.cell[0, 0] = 3
    graphite.with_free_variables([2.5, 6.8]).info["name"] = "other"
    assert graphite.info == {"name": "graphite"}


def test_pickles(graphite):
    back = pickle.loads(pickle.dumps(graphite))
    assert back.free_variables == pytest.approx(graphite.free_variables)
    assert back.sites[0].position is graphite.sites[0].position


def test_a_p1_crystal_of_200_atoms():
    rng = np.random.default_rng(1)
    cell = (20, 21, 22, 1.4, 1.5, 1.6)
    crystal = SymmetricCrystal.build(1, cell, [("C", 0, rng.random(3)) for _ in range(200)])
    assert crystal.n_atoms == 200
    assert crystal.free_variables.shape == (606,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((300, [1], []), "space group 300"),
        ((225, [1, 2], []), "has the free cell parameters a; 2 values"),
        ((225, [-1], []), "not positive"),
        ((225, [float("nan")], []), "nan"),
        ((225, [4], [("C", "z", [])]), "no Wyckoff position 'z'"),
        ((225, [4], [("C", "4c", [])]), "no Wyckoff position '4c'; it has 192l"),
        ((225, [4], [("C", "4a", [0.1])]), "has 0 free coordinates, not 1"),
        ((225, [4], [("Zz", "4a", [])]), "unknown chemical symbol"),
        ((225, [4], [("C", "24e", [np.inf])]), "not a finite number"),
    ],
)
def test_impossible_crystals(arguments, words):
    with pytest.raises(CrystalError) as error:
        SymmetricCrystal.build(*arguments)
    assert words in str(error.value)


def test_a_site_of_another_group():
    site = Site("C", wyckoff_positions(2)[0], np.zeros(3))
    with pytest.raises(CrystalError, match="space group 2 in a crystal of space group 1"):
        SymmetricCrystal(1, np.array([3, 4, 5, 1.5, 1.5, 1.5]), (site,))


def test_importing_the_room_does_not_load_what_is_slow():
    code = (
        "import sys; from asexlatent.symmetry import SymmetricCrystal as S;"
        "S.build(225, [4], [('C', 'a', [])]);"
        "print([m for m in ('torch', 'pyxtal', 'pymatgen', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
