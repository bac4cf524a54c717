from __future__ import annotations

import numpy as np
import pytest
import torch
from latent_cases import random_crystals

from asexlatent import CrystalBatch
from asexlatent.latent import Condition, standardize
from asexlatent.latent.columns import (
    CELL_COLUMNS,
    FreeVariableMap,
    column_names,
    free_columns,
    from_columns,
    to_columns,
)
from asexlatent.symmetry import CrystalError

CRYSTALS = tuple(standardize(c) for c in random_crystals(45, groups=tuple(range(1, 231, 6))))


@pytest.mark.parametrize("crystal", CRYSTALS, ids=str)
def test_round_trip(crystal):
    columns = to_columns(crystal, 4)
    condition = Condition.from_crystal(crystal)
    again = from_columns(condition, columns)
    np.testing.assert_allclose(again.free_variables, crystal.free_variables, rtol=1e-12)
    assert columns.shape == (len(column_names(4)),)


def test_as_many_columns_mean_something_as_variables_are_free():
    for crystal in CRYSTALS:
        mask = free_columns(Condition.from_crystal(crystal), 4)
        assert mask.sum() == len(crystal.free_variables)
        assert not to_columns(crystal, 4)[~mask].any()


def test_maps_give_the_variables_of_a_batch():
    columns = torch.as_tensor(np.array([to_columns(c, 4) for c in CRYSTALS]))
    maps = FreeVariableMap.of([Condition.from_crystal(c) for c in CRYSTALS])
    found = maps(columns)
    batch = CrystalBatch.from_crystals(CRYSTALS)
    # The conditions are standard but their standard form may still exchange equal axes.
    cells = batch.cells(found)
    np.testing.assert_allclose(torch.linalg.det(cells), [c.volume for c in CRYSTALS], rtol=1e-9)
    torch.testing.assert_close(found, batch.variables, rtol=1e-9, atol=1e-9)


def test_gradient_against_differences():
    crystals = random_crystals(12, groups=(2, 15, 62, 139, 166, 225))
    maps = FreeVariableMap.of([Condition.from_crystal(c) for c in crystals])
    columns = torch.as_tensor(np.array([to_columns(standardize(c), 4) for c in crystals]))
    columns += 0.01
    assert torch.autograd.gradcheck(maps, columns.requires_grad_(True), eps=1e-6, atol=1e-6)


def test_names():
    names = column_names(8)
    assert len(names) == 30
    assert names[:6] == CELL_COLUMNS
    assert names[6:10] == ("x0", "y0", "z0", "x1")


def test_impossible_cell_is_an_error():
    condition = Condition(1, (("C", 0),))
    columns = np.array([3.0, 0.0, 0.0, 0.2, 2.5, 0.3, 0.1, 0.2, 0.3])
    with pytest.raises(CrystalError, match="angles"):
        from_columns(condition, columns)
