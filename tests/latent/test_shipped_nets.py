"""The training set that ships with the package is what it is said to be."""

from __future__ import annotations

from collections import Counter
from importlib import resources

import numpy as np
import pytest
import spglib
from ase.neighborlist import neighbor_list

from asexlatent import identify_net
from asexlatent.symmetry import TableRow, read_table, wyckoff_positions


@pytest.fixture(scope="module")
def rows() -> list[TableRow]:
    with resources.as_file(resources.files("asexlatent") / "data" / "sp2_nets.csv.gz") as path:
        assert path.stat().st_size < 1.5e6
        return list(read_table(path))


def test_many_different_nets(rows):
    nets = [row.extra["net"] for row in rows]
    assert len(set(nets)) == len(nets) >= 2000
    dimensions = Counter(row.extra["dimension"] for row in rows)
    assert set(dimensions) == {"2", "3"}
    assert dimensions["2"] > 100
    assert all(net.startswith(row.extra["dimension"]) for net, row in zip(nets, rows, strict=True))


def test_variety(rows):
    crystals = [row.crystal() for row in rows]
    assert {crystal.n_sites for crystal in crystals} == set(range(1, 9))
    assert len({crystal.space_group for crystal in crystals}) > 130
    assert max(crystal.n_atoms for crystal in crystals) >= 192
    share = Counter(crystal.space_group for crystal in crystals).most_common(1)[0][1]
    assert share < 0.1 * len(rows)
    assert max(crystal.projection.max_distance for crystal in crystals) < 1e-4


def check(row: TableRow) -> None:
    crystal = row.crystal()
    atoms = crystal.to_atoms()
    first, distances = neighbor_list("id", atoms, 1.85)
    assert (np.bincount(first, minlength=len(atoms)) == 3).all(), row.index
    assert distances.min() > 1.15, row.index
    net = identify_net(atoms)
    assert [c.short_key for c in net.components] == [row.extra["net"]], row.index
    assert net.exact
    assert net.dimension == int(row.extra["dimension"])
    assert net.dimension == 2 or net.components[0].multiplicity == 1
    cell = (crystal.cell, crystal.scaled_positions(), [6] * crystal.n_atoms)
    found = spglib.get_symmetry_dataset(cell, symprec=1e-3)
    order = wyckoff_positions(crystal.space_group)[0].multiplicity
    assert len(spglib.get_symmetry(cell, symprec=1e-3)["rotations"]) % order == 0
    assert found.number == crystal.space_group, row.index  # stored at its highest group


def test_a_sample_of_rows(rows):
    for row in rows[:: len(rows) // 60]:
        check(row)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_row(rows):
    for row in rows:
        check(row)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_losses_are_those_of_the_rows(rows):
    from asexlatent.descriptor import LocalEnvironment
    from asexlatent.optimize import CrystalBatch, DescriptorLoss

    loss = DescriptorLoss(LocalEnvironment.named("sp2"))
    for start in range(0, len(rows), 500):
        part = rows[start : start + 500]
        batch = CrystalBatch.from_crystals([row.crystal() for row in part])
        values = loss.bind(batch).evaluate(batch.variables).value
        said = [float(row.extra["loss"]) for row in part]
        np.testing.assert_allclose(values.numpy(), said, atol=2e-4)
