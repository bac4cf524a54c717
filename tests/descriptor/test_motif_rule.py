"""The motif rule: counts, distances, batches, reports."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, graphene, molecule
from ase.neighborlist import neighbor_list
from descriptor_cases import flat, graphite
from hypothesis import given, settings
from hypothesis import strategies as st

from asexlatent.descriptor import MotifRule

SP2 = MotifRule({"C": 3}, {"C-C": 1.85}, {"C-C": 1.15})


def by_ase(atoms: Atoms, rule: MotifRule) -> list[bool]:
    """Atom by atom, with ASE's neighbours."""
    i, j, d = neighbor_list("ijd", atoms, rule.reach + 1e-9)
    result = []
    for atom in range(len(atoms)):
        count, near = 0, False
        for k in np.flatnonzero(i == atom):
            pair = "-".join(sorted((atoms.symbols[atom], atoms.symbols[j[k]])))
            count += d[k] < rule.cutoffs.get(pair, 0)
            near |= d[k] < rule.shortest.get(pair, 0)
        result.append(count in rule.coordination.get(atoms.symbols[atom], ()) and not near)
    return result


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_batches_equal_a_loop_over_atoms(seed):
    generator = np.random.default_rng(seed)
    rule = MotifRule(
        {"C": (3, 4), "H": 1}, {"C-C": 1.85, "H-C": 1.3}, {"C-C": 0.9, "C-H": 0.7, "H-H": 1.0}
    )
    structures = []
    for _ in range(20):
        n = generator.integers(1, 7)
        cell = np.eye(3) * generator.uniform(1.5, 2.6) + generator.normal(scale=0.3, size=(3, 3))
        symbols = generator.choice(["C", "C", "C", "H"], n)
        positions = generator.normal(size=(n, 3)) * 4
        structures.append(Atoms(symbols, cell=cell, positions=positions, pbc=True))
    structures += [graphite(), bulk("C"), graphite() * (2, 1, 1)]
    scaled, cells, crystal, numbers = flat(structures)
    valid = rule.valid(scaled, cells, crystal, torch.arange(len(scaled)), numbers)
    expected = [by_ase(atoms, rule) for atoms in structures]
    assert valid.tolist() == [all(each) for each in expected]
    assert valid[-3:].all()
    for atoms, each in zip(structures, expected, strict=True):
        report = rule.check(atoms)
        assert report.valid == all(each)
        assert len(report.problems) == each.count(False)


def test_every_image_counts():
    """One atom whose four neighbours are all images of itself, in a cell smaller than a bond."""
    atoms = Atoms("C", cell=[1.42, 1.42, 10], pbc=True)
    rule = MotifRule({"C": 4}, {"C-C": 1.85}, {"C-C": 1.15})
    report = rule.check(atoms)
    assert report.valid
    assert report.coordination == (4,)
    assert report.nearest == pytest.approx((1.42,))
    assert not SP2.check(atoms).valid


def test_coincident_atoms_are_too_near():
    atoms = graphite()
    atoms.append("C")
    atoms.positions[-1] = atoms.positions[0]
    report = SP2.check(atoms)
    assert not report.valid
    assert "C-C at 0.000 Å" in str(report)


def test_only_the_given_centres_are_judged():
    atoms = graphite()
    atoms.set_cell([2.46, 2.46, 13.4, 90, 90, 120], scale_atoms=True)
    atoms.append("C")
    atoms.positions[-1] = atoms.positions[0] + [0, 0, 3.35]  # alone between the layers
    scaled, cells, crystal, numbers = flat([atoms])
    for centers, expected in (([0, 1, 2, 3], True), ([0, 4], False), ([], False)):
        chosen = torch.tensor(centers, dtype=torch.long)
        assert SP2.valid(scaled, cells, crystal, chosen, numbers).tolist() == [expected]


def test_broken_crystals_are_not_valid_and_spoil_no_other():
    structures = [graphite() for _ in range(5)]
    scaled, cells, crystal, numbers = flat(structures)
    cells[1] = 0
    scaled[8] = float("nan")
    cells[3, 0, 0] = float("inf")
    centers = torch.arange(len(scaled))
    valid = SP2.valid(scaled, cells, crystal, centers, numbers)
    assert valid.tolist() == [True, False, False, False, True]


def test_unlisted_pairs_are_no_bonds_but_may_be_too_near():
    rule = MotifRule({"B": 3, "N": 3}, {"N-B": 1.9}, {"B-B": 2.0, "N-N": 2.0})
    sheet = graphene("BN", a=2.504, vacuum=5)
    sheet.pbc = True
    assert rule.check(sheet).valid
    swapped = sheet.copy()
    swapped.symbols[:] = "B"
    report = rule.check(swapped)
    assert report.coordination == (0, 0)
    assert "B-B at 1.446 Å, below 2.000 Å" in report.problems[0]
    assert "has 0 bonded neighbours, not 3" in report.problems[0]


def test_directions_without_pbc_have_no_images():
    flake = graphene(a=2.46, vacuum=None)
    assert not flake.pbc[2]
    assert SP2.check(flake).valid  # zero third vector
    flake.pbc = False
    assert SP2.check(flake).coordination == (1, 1)
    methane = molecule("CH4")
    rule = MotifRule({"C": 4, "H": 1}, {"C-H": 1.3}, {})
    assert rule.check(methane).valid
    tight = graphite()
    tight.pbc = (True, True, False)
    tight.cell[2] = [0, 0, 1.0]  # would be far too near, were it periodic
    assert SP2.check(tight).valid
    with pytest.raises(ValueError, match="without a lattice vector"):
        SP2.check(Atoms("C", pbc=True))


def test_report_reads_well():
    diamond = bulk("C")
    assert str(SP2.check(graphite())) == "valid: all 4 atoms obey the motif rule"
    text = str(SP2.check(diamond))
    assert text.startswith(
        "not valid: 2 of 2 atoms do not obey the motif rule\n  atom 0 (C): has 4"
    )
    assert "the rule has no coordination for Si" in str(SP2.check(bulk("Si")))
    assert not SP2.check(Atoms(cell=[3, 3, 3], pbc=True)).valid


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"C": 3}, {"CC": 1.85}, {}), "not a pair"),
        (({"C": 3}, {"C-Q": 1.85}, {}), "Q"),
        (({"Xx": 3}, {}, {}), "Xx"),
        (({"C": 3}, {"C-C": -1}, {}), "positive"),
        (({"C": []}, {}, {}), "numbers of neighbours"),
        (({"C": 3}, {}, {"C-C": float("nan")}), "positive"),
    ],
)
def test_malformed_rules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MotifRule(*arguments)


def test_rule_survives_a_dictionary():
    rule = MotifRule({"Si": 4, "O": (2, 3)}, {"Si-O": 2.0}, {"O-O": 2.1})
    assert rule.cutoffs == {"O-Si": 2.0}
    assert MotifRule(**rule.to_dict()) == rule
