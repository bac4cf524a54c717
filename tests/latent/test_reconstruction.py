"""Errors of reconstruction against the crystals themselves."""

from __future__ import annotations

import numpy as np
import pytest
from latent_cases import random_crystals, tiny_data, tiny_model

from asexlatent.latent import Dataset, standardize
from asexlatent.latent.reconstruction import reconstruction
from asexlatent.symmetry import cell_from_parameters


@pytest.mark.parametrize("kind", ["cvae", "tabular"])
def test_systems_add_up(kind):
    errors = reconstruction(tiny_model(kind), tiny_data())
    assert errors["all"].rows == len(tiny_data())
    assert sum(e.rows for system, e in errors.items() if system != "all") == errors["all"].rows
    assert errors["triclinic"].angle > 0
    assert errors["orthorhombic"].angle is None
    assert all(0 <= e.components <= 1 and e.length >= 0 for e in errors.values())


def test_one_crystal_by_hand():
    """The errors of a single crystal are those of what `encode` and `decode` make of it."""
    model = tiny_model()
    for crystal in random_crystals()[:8]:
        data = Dataset.from_candidates([crystal], max_sites=4)
        known = standardize(crystal)
        (found,) = model.decode(model.encode([crystal])[0], data.conditions)
        errors = reconstruction(model, data)["all"]
        lengths = np.abs(found.cell_parameters[:3] / known.cell_parameters[:3] - 1)
        assert errors.length == pytest.approx(lengths.mean(), abs=1e-4)
        squares = []
        for one, other in zip(known.sites, found.sites, strict=True):
            if one.position.dof:
                free = other.free - one.free
                moved = one.position.linear[0] @ (free - np.rint(free))
                squares.append(((moved @ cell_from_parameters(known.cell_parameters)) ** 2).sum())
        if squares:
            assert errors.coordinate == pytest.approx(np.sqrt(np.mean(squares)), abs=1e-3)
        else:
            assert errors.coordinate is None
