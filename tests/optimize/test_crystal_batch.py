from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import spglib
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optimize_cases import GROUPS, graphite, puckered, random_crystal

from asexlatent.optimize import CrystalBatch
from asexlatent.optimize.memory import GIB, crystal_bytes, plan_batches
from asexlatent.symmetry import SymmetricCrystal, lattice_variables, wyckoff_positions


@pytest.fixture(scope="module")
def one_per_group() -> list[SymmetricCrystal]:
    rng = np.random.default_rng(5)
    return [random_crystal(g, rng, n_sites=3, max_atoms=200) for g in range(1, 231)]


def everything(space_group: int, rng: np.random.Generator) -> SymmetricCrystal:
    """One site on every Wyckoff position of a group, coordinates in and out of [0, 1)."""
    lattice = lattice_variables(space_group)
    sites = [
        ("C", p.index, rng.uniform(-3, 3, p.dof)) for p in wyckoff_positions(space_group) if p.dof
    ] or [("C", 0, rng.uniform(-3, 3, 3))]
    return SymmetricCrystal.build(space_group, lattice.project([9, 10, 11, 1.4, 1.5, 1.6]), sites)


def test_geometry_is_that_of_the_crystals_in_input_order(one_per_group):
    order = np.random.default_rng(1).permutation(230)
    crystals = [one_per_group[k] for k in order]
    batch = CrystalBatch.from_crystals(crystals)
    cells, scaled = batch.geometry(batch.variables)
    assert batch.n_crystals == 230
    assert np.allclose(cells.numpy(), [c.cell for c in crystals], rtol=0, atol=1e-12)
    expected = np.concatenate([c.scaled_positions() for c in crystals])
    assert np.allclose(scaled.numpy(), expected, rtol=0, atol=1e-12)
    assert batch.atom_crystal.tolist() == [b for b, c in enumerate(crystals) for _ in c.symbols]
    assert set(batch.numbers.tolist()) == {6}
    # the representative of each site is its first atom
    first = np.concatenate(([0], np.cumsum(batch.multiplicity.tolist())[:-1]))
    assert batch.site_atom.tolist() == first.tolist()


def test_repeated_is_the_batch_of_repeated_crystals(one_per_group):
    crystals = one_per_group[::7]
    once, thrice = CrystalBatch.from_crystals(crystals), CrystalBatch.from_crystals(crystals * 3)
    assert once.repeat(1) is once
    for field in dataclasses.fields(CrystalBatch):
        made, expected = (getattr(b, field.name) for b in (once.repeat(3), thrice))
        assert torch.equal(made, expected), field.name


@pytest.mark.parametrize("space_group", [2, 14, 43, 70, 88, 136, 148, 155, 167, 194, 205, 229])
def test_other_variables_keep_the_space_group(space_group):
    """Spglib finds the group again after every free variable has moved."""
    rng = np.random.default_rng(space_group)
    positions = wyckoff_positions(space_group)
    cell = lattice_variables(space_group).project([8, 9, 10, 1.4, 1.5, 1.6])
    general = [("C", 0, rng.random(3)), ("C", min(1, len(positions) - 1), None)]
    dof = positions[general[1][1]].dof
    sites = [general[0], ("C", general[1][1], rng.random(dof))]
    batch = CrystalBatch.from_crystals([SymmetricCrystal.build(space_group, cell, sites)])
    variables = batch.variables * (1 + 0.1 * torch.rand(batch.n_variables))
    cells, scaled = batch.geometry(variables)
    found = spglib.get_spacegroup(
        (cells[0].numpy(), scaled.numpy(), batch.numbers.numpy()), symprec=1e-4
    )
    assert f"({space_group})" in found


def test_kinds_and_owners_of_the_variables():
    triclinic = SymmetricCrystal.build(2, [3, 4, 5, 1.4, 1.5, 1.6], [("C", 0, [0.1, 0.2, 0.3])])
    batch = CrystalBatch.from_crystals([graphite(), triclinic, puckered()])
    assert batch.variable_kind.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 2]
    assert batch.variable_crystal.tolist() == [0] * 2 + [1] * 9 + [2] * 3
    assert batch.slot.tolist() == [0, 1, *range(9), 0, 1, 2]
    assert batch.n_cell_variables.tolist() == [2, 6, 2]
    assert batch.sites_per_crystal().tolist() == [2, 1, 1]
    assert batch.cell_parameters(batch.variables)[1].tolist() == pytest.approx(
        [3, 4, 5, 1.4, 1.5, 1.6]
    )


@settings(max_examples=30, deadline=None)
@given(keep=st.lists(st.booleans(), min_size=len(GROUPS), max_size=len(GROUPS)).filter(any))
def test_select_is_packing_the_chosen_crystals(keep):
    rng = np.random.default_rng(2)
    crystals = [random_crystal(g, rng) for g in GROUPS]
    selected = CrystalBatch.from_crystals(crystals).select(torch.tensor(keep))
    packed = CrystalBatch.from_crystals([c for c, k in zip(crystals, keep, strict=True) if k])
    for field in dataclasses.fields(CrystalBatch):
        mine, expected = getattr(selected, field.name), getattr(packed, field.name)
        assert torch.equal(mine, expected), field.name
        assert mine.dtype == expected.dtype, field.name


def test_wrap_changes_no_crystal_of_any_group():
    """Every position of all 230 groups: wrapped coordinates move atoms by lattice vectors."""
    rng = np.random.default_rng(3)
    batch = CrystalBatch.from_crystals([everything(g, rng) for g in range(1, 231)])
    wrapped = batch.wrap(batch.variables)
    fractional = batch.variable_kind == 2
    assert (wrapped[fractional] >= 0).all()
    assert (wrapped[fractional] < 1).all()
    assert torch.equal(wrapped[~fractional], batch.variables[~fractional])
    assert (wrapped != batch.variables)[fractional].double().mean() > 0.5
    cells, scaled = batch.geometry(batch.variables)
    wrapped_cells, wrapped_scaled = batch.geometry(wrapped)
    moved = (wrapped_scaled - scaled).numpy()
    assert np.abs(moved - np.rint(moved)).max() < 1e-9
    assert torch.equal(cells, wrapped_cells)


def test_the_affine_maps_of_all_positions_are_integers():
    for space_group in range(1, 231):
        for position in wyckoff_positions(space_group):
            columns = position.rotations[:, :, position.variables]
            assert np.array_equal(columns, np.rint(columns)), position


def test_split_and_sizes(one_per_group):
    batch = CrystalBatch.from_crystals(one_per_group)
    parts = batch.split(batch.variables)
    for part, crystal in zip(parts, one_per_group, strict=True):
        assert np.array_equal(part, crystal.free_variables)
    assert batch.variables_per_crystal().tolist() == [len(part) for part in parts]
    per_variable = [t for t in vars(batch).values() if len(t) == batch.n_variables]
    assert batch.nbytes() > sum(t.numel() * t.element_size() for t in per_variable)


def test_single_precision_and_an_empty_list():
    batch = CrystalBatch.from_crystals([graphite()], dtype=torch.float32)
    cells, scaled = batch.geometry(batch.variables)
    assert cells.dtype == scaled.dtype == torch.float32
    with pytest.raises(ValueError, match="at least one crystal"):
        CrystalBatch.from_crystals([])


# ----------------------------------------------------------------------------------------- memory


def test_batches_keep_the_order_and_the_budget(one_per_group, sp2):
    budget = 0.01
    batches = plan_batches(one_per_group, sp2, memory=budget)
    assert [k for part in batches for k in part] == list(range(230))
    needs = [crystal_bytes(c, sp2, torch.float64) for c in one_per_group]
    for part in batches:
        used = sum(needs[k] for k in part)
        assert used <= budget * GIB or len(part) == 1
    # and no batch could have taken the next crystal
    for part, following in pairwise(batches):
        assert sum(needs[k] for k in [*part, following[0]]) > budget * GIB
    assert len(plan_batches(one_per_group, sp2, memory=budget, dtype=torch.float32)) < len(batches)


def test_a_crystal_beyond_the_budget_gets_its_own_batch(one_per_group, sp2):
    assert plan_batches(one_per_group[:3], sp2, memory=1e-9) == [[0], [1], [2]]
    assert plan_batches([], sp2) == []


def test_dense_crystals_need_more(sp2):
    loose, dense, denser = (crystal_bytes(graphite(a, a), sp2, torch.float64) for a in (9, 1.2, 1))
    assert loose < dense < denser


def test_batches_of_a_given_size(one_per_group, sp2):
    assert plan_batches(one_per_group[:5], sp2, batch_size=2) == [[0, 1], [2, 3], [4]]
    with pytest.raises(ValueError, match="batch_size must be 'auto' or at least 1, not 0"):
        plan_batches(one_per_group[:5], sp2, batch_size=0)
