from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latent_cases import random_crystals

from asexlatent.latent import Condition, Vocabulary
from asexlatent.symmetry import CrystalError, wyckoff_positions


@st.composite
def conditions(draw) -> Condition:
    group = draw(st.integers(1, 230))
    positions = wyckoff_positions(group)
    indices = draw(st.lists(st.integers(0, len(positions) - 1), min_size=1, max_size=6))
    kept: list[int] = []
    for index in indices:
        if positions[index].dof or index not in kept:
            kept.append(index)
    return Condition(group, tuple((draw(st.sampled_from(("C", "Si", "O"))), i) for i in kept))


@given(conditions())
@settings(max_examples=60, deadline=None)
def test_text_says_everything(condition):
    assert Condition.parse(str(condition)) == condition


def test_parse_takes_letters_labels_and_a_species_for_all():
    assert Condition.parse("166 6c 18h") == Condition(166, (("C", 6), ("C", 1)))
    assert Condition.parse("166: c, Si h") == Condition(166, (("C", 6), ("Si", 1)))
    assert Condition.parse("194 f", species="B").sites == (("B", 6),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("6c", "does not begin with a space group"),
        ("231 a", "231"),
        ("166 7z", "neither an element nor a Wyckoff position"),
        ("166", "at least one site"),
        ("166 3a 3a", "only once"),
    ],
)
def test_conditions_that_cannot_be(text, words):
    with pytest.raises(CrystalError, match=words):
        Condition.parse(text)


def test_condition_of_a_crystal_and_back():
    for crystal in random_crystals(20):
        condition = Condition.from_crystal(crystal)
        assert (condition.n_atoms, condition.n_sites) == (crystal.n_atoms, crystal.n_sites)
        assert condition.n_free == len(crystal.free_variables)
        again = condition.crystal(crystal.free_variables)
        np.testing.assert_array_equal(again.free_variables, crystal.free_variables)
        assert again.wyckoffs == crystal.wyckoffs


def test_vocabulary_names_what_it_does_not_know():
    known = [Condition.parse("166 6c"), Condition.parse("194 2b 2c")]
    vocabulary = Vocabulary.of(known, max_sites=2)
    assert vocabulary.problem(known[0]) is None
    assert "element Si" in vocabulary.problem(Condition.parse("166 Si 6c"))
    assert "more than the 2" in vocabulary.problem(Condition.parse("166 6c 6c 6c"))
    assert "space group 225" in vocabulary.problem(Condition.parse("225 8c"))
    with pytest.raises(CrystalError, match=r"condition 1 \(225: C 8c\): space group 225"):
        vocabulary.check([known[0], Condition.parse("225 8c")])


@given(st.lists(conditions(), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_one_hot_tells_conditions_apart(some):
    vocabulary = Vocabulary.of(some, max_sites=6)
    vectors = vocabulary.one_hot(some)
    assert vectors.shape == (len(some), vocabulary.width)
    assert set(np.unique(vectors)) <= {0.0, 1.0}
    np.testing.assert_array_equal(vectors.sum(axis=1), [1 + 2 * c.n_sites for c in some])
    for a, one in zip(vectors, some, strict=True):
        for b, other in zip(vectors, some, strict=True):
            assert np.array_equal(a, b) == (one == other)
