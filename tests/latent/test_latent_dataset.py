from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from latent_cases import random_crystals

from asexlatent.latent import Condition, Dataset
from asexlatent.latent.columns import to_columns
from asexlatent.symmetry import CrystalError, SymmetricCrystal


def test_what_cannot_be_represented_is_counted_and_named():
    crystals = list(random_crystals(12, max_sites=4))
    large = max(crystals, key=lambda crystal: crystal.n_sites)
    candidates = [bulk("C", "diamond", a=3.57), CrystalError("no cell"), large]
    data = Dataset.from_candidates(
        candidates, ["a.cif", "b.cif@3", "c"], max_sites=large.n_sites - 1
    )
    assert len(data) == 1
    assert data.conditions == (Condition.parse("227 8a"),)
    assert [(s.source, s.reason.split()[0]) for s in data.skipped] == [
        ("b.cif@3", "no"),
        ("c", str(large.n_sites)),
    ]
    assert sum(data.reasons().values()) == 2
    assert "2 skipped" in repr(data)


def test_rows_are_the_standard_columns():
    crystals = random_crystals(12)
    data = Dataset.from_candidates(crystals, max_sites=4)
    for crystal, values, mask in zip(crystals, data.values, data.mask, strict=True):
        assert mask.sum() == len(crystal.free_variables)
        volume = crystal.volume / crystal.n_atoms
        assert values[0] == pytest.approx(np.log(volume), abs=1e-9)
    again = SymmetricCrystal.from_row(crystals[0].to_row())
    assert to_columns(again, 4).shape == data.values[0].shape


def test_parents_are_held_out_together():
    crystals = random_crystals(60)
    named = [
        SymmetricCrystal(c.space_group, c.cell_free, c.sites, {"asx_parent": f"p{k // 3}"})
        for k, c in enumerate(crystals)
    ]
    data = Dataset.from_candidates(named, max_sites=4)
    train, held = data.split(0.4, seed=1)
    assert len(train) + len(held) == 60
    assert not set(train.parents) & set(held.parents)
    assert 0.1 < len(held) / 60 < 0.8
    backwards = Dataset.from_candidates(named[::-1], max_sites=4)
    assert set(backwards.split(0.4, seed=1)[1].parents) == set(held.parents)
    assert set(data.split(0.4, seed=2)[1].parents) != set(held.parents)
    assert len(data.split(0.0)[1]) == 0
    with pytest.raises(ValueError, match="hold out"):
        data.split(1.0)


def test_hash_says_whether_the_data_are_the_same():
    crystals = random_crystals(12)
    one = Dataset.from_candidates(crystals, max_sites=4).hash()
    assert one == Dataset.from_candidates(list(crystals), max_sites=4).hash()
    assert one != Dataset.from_candidates(crystals[1:], max_sites=4).hash()
    assert one != Dataset.from_candidates(crystals, max_sites=5).hash()
    parents = ["x"] * 12
    assert one != Dataset.from_candidates(crystals, parents=parents, max_sites=4).hash()
