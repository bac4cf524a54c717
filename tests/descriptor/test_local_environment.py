"""LocalEnvironment: names, structures, files, matching."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.io import write
from ase.spacegroup import crystal
from descriptor_cases import flat, graphite, spectra_of

from asexlatent.descriptor import LocalEnvironment, MotifRule, neighbor_pairs, pair_vectors
from asexlatent.descriptor.references import REFERENCES

NAMES = ["sp2", "sp3", "sp", "SiO4", "MgO6", "TiO6", "BN"]


def quartz() -> Atoms:
    """Levien, Prewitt & Weidner, Am. Mineral. 65, 920 (1980); ASE's own symmetry operations."""
    return crystal(
        ["Si", "O"],
        [(0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.1191 + 2 / 3)],
        spacegroup=154,
        cellpar=[4.916, 4.916, 5.4054, 90, 90, 120],
    )


@pytest.mark.parametrize("name", NAMES)
def test_named_environments_obey_themselves(name):
    environment = LocalEnvironment.named(name)
    atoms = REFERENCES[name].build()
    assert environment.is_valid(atoms)
    assert environment.is_valid(make_supercell(atoms, [[1, 1, 0], [0, 1, 0], [0, 0, 2]]))
    assert set(environment.species) == set(atoms.symbols)
    model = environment.power_spectrum()
    spectra = torch.tensor(spectra_of(atoms, model))
    target = environment.target_for(spectra, torch.tensor(atoms.numbers))
    scale = float(spectra.abs().max())
    torch.testing.assert_close(target, spectra, rtol=0, atol=1e-3 * scale)
    assert environment.source


@pytest.mark.parametrize(
    ("name", "group", "coordination", "bonds"),
    [
        ("sp2", 194, {"C": (3,)}, (1.420, 1.421)),
        ("sp3", 227, {"C": (4,)}, (1.544, 1.545)),
        ("sp", 123, {"C": (2,)}, (1.282, 1.282)),
        ("SiO4", 154, {"Si": (4,), "O": (2,)}, (1.597, 1.617)),  # published bond lengths
        ("MgO6", 225, {"Mg": (6,), "O": (6,)}, (2.105, 2.107)),
        ("TiO6", 136, {"Ti": (6,), "O": (3,)}, (1.9485, 1.9800)),
        ("BN", 194, {"B": (3,), "N": (3,)}, (1.445, 1.446)),
    ],
)
def test_named_environments_are_what_they_say(name, group, coordination, bonds):
    import spglib
    from ase.neighborlist import neighbor_list

    environment = LocalEnvironment.named(name.upper())
    assert environment.name == name
    assert environment.rule.coordination == coordination
    atoms = REFERENCES[name].build()
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    assert spglib.get_symmetry_dataset(cell, 1e-4).number == group
    assert len(environment.spectra) == len(coordination)
    pairs = {tuple(key.split("-")): value for key, value in environment.rule.cutoffs.items()}
    i, d = neighbor_list("id", atoms, pairs)
    counts = np.bincount(i, minlength=len(atoms))
    for symbol, number in zip(atoms.symbols, counts, strict=True):
        assert coordination[symbol] == (number,)
    assert d.min() == pytest.approx(bonds[0], abs=1.5e-3)
    assert d.max() == pytest.approx(bonds[1], abs=1.5e-3)


def test_carbon_has_the_rule_of_the_design():
    for name, number in (("sp2", 3), ("sp3", 4), ("sp", 2)):
        rule = LocalEnvironment.named(name).rule
        assert rule == MotifRule({"C": number}, {"C-C": 1.85}, {"C-C": 1.15})
        assert LocalEnvironment.named(name).descriptor["rcut"] == 2.1


def test_descriptor_settings_are_followed():
    environment = LocalEnvironment.named("sp2", nmax=4, lmax=6, rcut=3.0, alpha=2.0)
    assert environment.spectra.shape == (1, 70)
    assert environment.power_spectrum(torch.float32).rcut == 3.0
    assert LocalEnvironment.named("BN").descriptor["species"] == ["B", "N"]
    assert LocalEnvironment.named("BN", weighting="Z").spectra.shape == (2, 15)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'sp4'.*sp2, sp3, sp, SiO4.*from_file"):
        LocalEnvironment.named("sp4")


def test_rule_is_derived_from_the_structure():
    environment = LocalEnvironment.from_atoms(bulk("C"))
    bond, second = 3.567 * np.sqrt(3) / 4, 3.567 / np.sqrt(2)
    assert environment.rule.coordination == {"C": (4,)}
    assert environment.rule.cutoffs["C-C"] == pytest.approx((bond * second) ** 0.5, rel=1e-3)
    assert environment.rule.shortest["C-C"] == pytest.approx(0.8 * bond, rel=1e-3)
    assert environment.descriptor["rcut"] == pytest.approx(1.48 * bond, abs=6e-3)
    assert environment.name == "C2"

    silica = LocalEnvironment.from_atoms(quartz())
    assert silica.rule.coordination == {"Si": (4,), "O": (2,)}
    assert silica.species == ("Si", "O")
    assert set(silica.rule.cutoffs) == {"O-Si"}
    assert set(silica.rule.shortest) == {"O-Si", "O-O", "Si-Si"}


def test_perovskite_counts_the_same_pair_from_both_sides():
    """Strontium has twelve oxygens; each oxygen then has four strontiums beside two titaniums."""
    a = 3.905
    symbols = "SrTiO3"
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    atoms = Atoms(symbols, cell=[a] * 3, scaled_positions=sites, pbc=True)
    cutoffs = {"Ti-O": 2.3, "Sr-O": 3.0}
    environment = LocalEnvironment.from_atoms(atoms, cutoffs=cutoffs)
    assert environment.rule.coordination == {"Sr": (12,), "Ti": (6,), "O": (6,)}


def test_parts_of_the_rule_may_be_given():
    environment = LocalEnvironment.from_atoms(
        graphite(), cutoffs={"C-C": 2.6}, shortest={"C-C": 1.3}, coordination={"C": (3, 9)}
    )
    rule = environment.rule
    assert rule == MotifRule({"C": (3, 9)}, {"C-C": 2.6}, {"C-C": 1.3})
    assert LocalEnvironment.from_atoms(graphite(), cutoffs={"C-C": 2.6}).rule.coordination == {
        "C": (9,)
    }


def test_sites_are_chosen_by_index_and_species():
    atoms = quartz()
    silicon = LocalEnvironment.from_atoms(atoms, "Si")
    assert silicon.species == ("Si",)
    assert LocalEnvironment.from_atoms(atoms, 4).species == ("O",)
    both = LocalEnvironment.from_atoms(atoms, [0, "O"])
    assert both.species == ("Si", "O")
    for sites, message in ((99, "no site 99"), (-1, "no site -1"), ("Al", "'Al'"), ([], "no site")):
        with pytest.raises(ValueError, match=message):
            LocalEnvironment.from_atoms(atoms, sites)
    with pytest.raises(ValueError, match="no atoms"):
        LocalEnvironment.from_atoms(Atoms(cell=[1, 1, 1], pbc=True))


def test_equal_sites_are_merged_and_different_ones_kept():
    assert len(LocalEnvironment.from_atoms(graphite() * (2, 2, 1)).spectra) == 1
    mixed = Atoms("C6", pbc=True, cell=[20, 10, 10])
    mixed.positions[:, 0] = [0, 1.28, 2.56, 10, 11.4, 12.8]  # chains of three, two bond lengths
    assert len(LocalEnvironment.from_atoms(mixed, cutoffs={"C-C": 1.85}).spectra) == 4


def test_structures_without_an_environment_are_refused():
    lonely = Atoms("C", cell=[30, 30, 30], pbc=True)
    with pytest.raises(ValueError, match="no neighbour within 16"):
        LocalEnvironment.from_atoms(lonely)
    gapless = Atoms("C10", cell=[30, 30, 30], pbc=True)
    gapless.positions[:, 0] = np.cumsum([0, 1.5, 0.2, 0.2, 0.25, 0.25, 0.3, 0.3, 0.35, 0.35])
    with pytest.raises(ValueError, match="no gap"):
        LocalEnvironment.from_atoms(gapless, 0)
    with pytest.raises(ValueError, match=r"no neighbour within rcut = 1.2 Å; raise rcut"):
        LocalEnvironment.from_atoms(graphite(), rcut=1.2)
    with pytest.raises(ValueError, match="no neighbour within the cutoffs"):
        LocalEnvironment.from_atoms(graphite(), cutoffs={"C-C": 1.2})


def test_each_site_is_matched_to_the_nearest_reference_of_its_species():
    """Two references of carbon: a graphite site gets graphite's, a diamond site diamond's."""
    options = {"cutoffs": {"C-C": 1.85}, "rcut": 2.1}
    sp2 = LocalEnvironment.from_atoms(graphite(), **options)
    sp3 = LocalEnvironment.from_atoms(bulk("C"), **options)
    both = LocalEnvironment(
        "carbon",
        torch.cat((sp2.spectra, sp3.spectra)),
        ("C", "C"),
        MotifRule({"C": (3, 4)}, {"C-C": 1.85}, {"C-C": 1.15}),
        sp2.descriptor,
    )
    generator = torch.Generator().manual_seed(0)
    noise = 0.05 * torch.randn(4, 15, generator=generator, dtype=torch.float64)
    spectra = torch.cat((sp3.spectra, sp2.spectra, sp2.spectra, sp3.spectra)) + noise
    spectra.requires_grad_()
    numbers = torch.full((4,), 6)
    target = both.target_for(spectra, numbers)
    expected = torch.cat((sp3.spectra, sp2.spectra, sp2.spectra, sp3.spectra))
    assert torch.equal(target, expected)
    assert not target.requires_grad
    (gradient,) = torch.autograd.grad(((spectra - target) ** 2).sum(), spectra)
    torch.testing.assert_close(gradient, 2 * noise)
    assert both.is_valid(graphite())
    assert both.is_valid(bulk("C"))


def test_species_are_never_mixed():
    environment = LocalEnvironment.named("BN", weighting="Z")
    boron = environment.spectra[environment.numbers == 5]
    numbers = torch.tensor([7, 5])
    target = environment.target_for(boron.repeat(2, 1), numbers)  # both look like boron
    assert torch.equal(target[1], boron[0])
    assert not torch.equal(target[0], boron[0])


def test_foreign_species_is_named_with_the_environment():
    environment = LocalEnvironment.named("sp2")
    with pytest.raises(ValueError, match=r"crystal contains Si, but environment sp2 has only C"):
        environment.check_species(torch.tensor([6, 14]))
    environment.check_species(torch.tensor([6, 6]))
    target = environment.target_for(torch.zeros(2, 15, dtype=torch.float64), torch.tensor([6, 14]))
    assert torch.isfinite(target[0]).all()
    assert torch.isnan(target[1]).all()
    assert not environment.is_valid(bulk("Si"))


def test_batched_valid_is_that_of_single_structures():
    environment = LocalEnvironment.named("SiO4")
    broken = quartz()
    broken.positions[3] += [0.9, 0, 0]
    structures = [quartz(), broken, quartz() * (1, 1, 2)]
    scaled, cells, crystals, numbers = flat(structures)
    centers = torch.arange(len(scaled))
    valid = environment.valid(scaled, cells, crystals, centers, numbers)
    assert valid.tolist() == [True, False, True]
    assert [environment.is_valid(atoms) for atoms in structures] == [True, False, True]


# ---------------------------------------------------------------------- files


def test_from_file_equals_from_atoms(tmp_path):
    path = tmp_path / "my-quartz.cif"
    write(path, quartz())
    from_file = LocalEnvironment.from_file(path, "Si", nmax=3)
    from_atoms = LocalEnvironment.from_atoms(quartz(), "Si", nmax=3)
    torch.testing.assert_close(from_file.spectra, from_atoms.spectra, rtol=1e-4, atol=1e-3)
    assert from_file.name == "my-quartz"
    with pytest.raises(ValueError, match="no such file"):
        LocalEnvironment.from_file(tmp_path / "absent.cif")
    (tmp_path / "text.cif").write_text("nothing of the kind")
    with pytest.raises(ValueError, match=r"text.cif cannot be read"):
        LocalEnvironment.from_file(tmp_path / "text.cif")


@pytest.mark.parametrize("name", ["sp2", "SiO4"])
def test_saved_environment_is_the_same(tmp_path, name):
    environment = LocalEnvironment.named(name, lmax=3)
    path = tmp_path / "environment.json"
    environment.save(path)
    again = LocalEnvironment.load(path)
    assert torch.equal(again.spectra, environment.spectra)
    for field in ("name", "species", "rule", "descriptor", "source"):
        assert getattr(again, field) == getattr(environment, field)
    wide, wide_again = environment.widened(1.3), again.widened(1.3)
    torch.testing.assert_close(wide_again.spectra, wide.spectra, rtol=1e-12, atol=1e-12)
    expected = LocalEnvironment.named(name, lmax=3, rcut=1.3 * environment.descriptor["rcut"])
    torch.testing.assert_close(wide.spectra, expected.spectra)
    assert wide.rule == environment.rule


def test_other_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "environment.json"
    LocalEnvironment.named("sp2").save(path)
    good = json.loads(path.read_text())

    def refused(content, message):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(ValueError, match=message) as caught:
            LocalEnvironment.load(path)
        assert "environment.json" in str(caught.value)
        assert "\n" not in str(caught.value)

    refused("{", "not a JSON file")
    refused([1, 2], "not a saved local environment")
    refused({"cells": []}, "not a saved local environment")
    refused({**good, "version": 99}, "version 99")
    for key in ("spectra", "species", "rule", "descriptor", "name"):
        refused({k: v for k, v in good.items() if k != key}, f"'{key}' is missing")
    refused({**good, "species": ["C", "C"]}, "damaged")
    refused({**good, "spectra": [[1.0, 2.0]]}, "damaged")
    refused({**good, "spectra": "none"}, "damaged")
    refused({**good, "descriptor": {"nmax": 2, "colour": 1}}, "damaged")
    refused({**good, "rule": {"coordination": {}}}, "damaged")
    refused({**good, "rule": {**good["rule"], "coordination": {}}}, "no coordination rule for C")
    with pytest.raises(ValueError, match="no such file"):
        LocalEnvironment.load(tmp_path / "absent.json")


def test_environment_of_a_molecule():
    """A finite reference: the carbon of methane, hydrogens ignored."""
    from ase.build import molecule

    environment = LocalEnvironment.from_atoms(molecule("CH4"), "C")
    assert environment.rule.coordination == {"C": (4,)}
    assert environment.rule.shortest["C-H"] == pytest.approx(0.8 * 1.09, abs=0.01)


def test_pairs_of_an_environment_are_few():
    """The cutoff of each named environment holds the first shell and little more."""
    for name in NAMES:
        environment = LocalEnvironment.named(name)
        scaled, cells, crystals, _ = flat([REFERENCES[name].build()])
        centers = torch.arange(len(scaled))
        rcut = environment.descriptor["rcut"]
        pairs = neighbor_pairs(scaled, cells, crystals, centers, rcut)
        lengths = pair_vectors(scaled, cells, crystals, centers, pairs).norm(dim=1)
        bonds = lengths < max(environment.rule.cutoffs.values())
        assert 0.55 < float(lengths[bonds].max()) / rcut < 0.8
