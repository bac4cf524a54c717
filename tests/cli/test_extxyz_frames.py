from __future__ import annotations

import io
import string

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLength
from ase.io import read
from ase.spacegroup import Spacegroup
from hypothesis import given, settings
from hypothesis import strategies as st

from asexlatent.cli.extxyz import frame_text


def back(atoms: Atoms, keep_results: bool = False) -> Atoms:
    """The frame as ASE reads it, from between two others."""
    text, _ = frame_text(atoms, keep_results)
    guard = "1\nProperties=species:S:1:pos:R:3 guard=5\nH 0 0 0\n"
    frames = read(io.StringIO(guard + text + guard), index=":", format="extxyz")
    assert len(frames) == 3
    assert frames[2].info == {"guard": 5}
    return frames[1]


texts = st.text(max_size=12) | st.text(alphabet="ab =\"'\\{}[](),;\n\t_TF01.-", max_size=12)
plain = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(texts.filter(lambda key: key != "sentinel"), values, max_size=4),
    st.integers(0, 2),
)
@settings(deadline=None)
def test_any_info_leaves_the_file_readable(info, n_atoms):
    atoms = Atoms("C" * n_atoms, positions=np.arange(3 * n_atoms).reshape(-1, 3), info=info)
    atoms.info["sentinel"] = 7
    frame = back(atoms)
    assert len(frame) == n_atoms
    assert frame.info["sentinel"] == 7
    blank = sum(
        (isinstance(v, str) and not back(Atoms(info={"k": v})).info)
        or (isinstance(v, list | dict) and not v)
        for v in info.values()
    )
    assert len(frame.info) == len(atoms.info) - blank
    assert np.allclose(frame.positions, atoms.positions)
    assert frame.calc is None


@given(texts)
def test_text_comes_back_as_the_same_text(words):
    found = back(Atoms(info={"key": words})).info.get("key", "")
    expected = "".join(" " if c.isspace() or not c.isprintable() else c for c in words)
    assert found == (expected if expected.strip() else "")


@given(
    st.dictionaries(
        st.text(alphabet=string.ascii_letters + ' :="', min_size=1, max_size=6),
        st.sampled_from(
            [bool, np.int64, np.uint8, np.uint64, float, np.float32, complex, "U3", "S2", object]
        ),
        max_size=4,
    ),
    st.integers(0, 3),
    st.sampled_from([(), (1,), (3,), (2, 2), (0,)]),
)
def test_any_array_leaves_the_file_readable(kinds, n_atoms, shape):
    atoms = Atoms("C" * n_atoms)
    for name, kind in kinds.items():
        atoms.arrays[name] = np.zeros((n_atoms, *shape), dtype=kind)
    assert len(back(atoms)) == n_atoms


def test_values_survive():
    atoms = bulk("C", cubic=True)
    atoms.info = {
        "n": 3,
        "x": -1.5,
        "yes": True,
        "vector": np.arange(3),
        "matrix": np.eye(2),
        "label": "007",
        "truth": "T",
        "path": 'C:\\new "one"',
        "nested": {"a": [1, "b\nc"]},
        "nothing": None,
        "group": Spacegroup(194),
        "uid": "12",
    }
    atoms.arrays["name"] = np.array(["a b", "", *"cdefgh"], dtype=object)
    atoms.arrays["large"] = np.full(8, 2**40)
    atoms.set_tags(range(8))
    atoms.set_initial_charges(np.linspace(0, 1, 8))
    atoms.set_momenta(np.ones((8, 3)))
    frame = back(atoms)
    for key in ("n", "x", "yes", "label", "truth", "path", "nested", "nothing", "uid"):
        assert frame.info[key] == atoms.info[key], key
    assert np.array_equal(frame.info["vector"], np.arange(3))
    assert np.array_equal(frame.info["matrix"], np.eye(2))
    assert frame.info["group"] == "P 63/m m c"
    assert list(frame.arrays["name"]) == ["a_b", "_", *"cdefgh"]
    assert (frame.arrays["large"] == 2**40).all()
    for name in ("tags", "initial_charges", "momenta"):
        assert np.allclose(frame.arrays[name], atoms.arrays[name])


def test_empty_values_are_left_out():
    frame = back(Atoms(info={"a": "", "b": " \n", "c": [], "d": np.array([]), "e": 1}))
    assert frame.info == {"e": 1}


def test_results_are_not_passed_off_as_those_of_the_new_structure():
    atoms = bulk("C")
    atoms.info = {"stress": np.eye(3), "energy": -3.0, "virial": 5}
    atoms.arrays["magmoms"] = np.ones(2)
    frame = back(atoms)
    assert frame.calc is None
    assert frame.info["asx_input_energy"] == -3.0
    assert np.array_equal(frame.info["asx_input_stress"], np.eye(3))
    assert np.array_equal(frame.arrays["asx_input_magmoms"], [1, 1])

    results = {"energy": -2.0, "forces": np.ones((2, 3)), "stress": np.arange(6.0)}
    plain = bulk("C")
    plain.calc = SinglePointCalculator(plain, **results, charges=None)
    changed = back(plain)
    assert changed.calc is None
    assert changed.info == {"asx_input_energy": -2.0}
    kept = back(plain, keep_results=True)
    for name, value in results.items():
        assert np.allclose(kept.calc.results[name], value)


def test_constraints():
    atoms = bulk("C", cubic=True)
    atoms.set_constraint([FixAtoms([2]), FixBondLength(0, 1)])
    text, notes = frame_text(atoms, False)
    frame = read(io.StringIO(text), format="extxyz")
    assert [list(c.index) for c in frame.constraints] == [[2]]
    assert notes == ["extended XYZ cannot hold the constraint FixBondLengths"]


@pytest.mark.parametrize("cell", [None, np.full((3, 3), np.nan), np.eye(3)])
def test_no_atoms(cell):
    frame = back(Atoms(cell=cell, info={"asx_status": "failed", "asx_reason": 'it\'s "bad"'}))
    assert len(frame) == 0
    assert frame.info == {"asx_status": "failed", "asx_reason": 'it\'s "bad"'}
