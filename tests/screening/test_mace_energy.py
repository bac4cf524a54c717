"""Energies of inequivalent sites against MACE's own calculator on the whole cell."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from energy_cases import (
    GROUPS,
    energy_per_atom,
    mace_calculator,
    make_model,
    random_crystal,
    roomy_crystal,
    slopes,
    small_model,
)

from asexlatent.optimize import CrystalBatch
from asexlatent.optimize.metric import Metric
from asexlatent.screening import MACEEnergy, mace_energy
from asexlatent.screening.site_network import SiteNetwork, wigner
from asexlatent.symmetry import SymmetricCrystal

make_energy = functools.cache(MACEEnergy)  # a network is copied once, which is slow


def evaluate(crystals, module, **options):
    batch = CrystalBatch.from_crystals(crystals)
    return batch, make_energy(module, **options).bind(batch).evaluate(batch.variables)


def shown_by_ase(crystal, module):
    """Energy per atom, largest force, and largest row of stress times volume per atom."""
    atoms = crystal.to_atoms()
    atoms.calc = mace_calculator(module)
    stress = np.linalg.norm(atoms.get_stress(voigt=False), axis=1).max()
    force = np.linalg.norm(atoms.get_forces(), axis=1).max()
    n = len(atoms)
    return atoms.get_potential_energy() / n, force, stress * atoms.get_volume() / n


@pytest.fixture(scope="module")
def mixed():
    return [roomy_crystal(group, 0) for group in GROUPS]


class TestAgainstTheWholeCell:
    """All groups in one batch: what one crystal gets must not depend on the others."""

    def test_energy_forces_and_stress(self, mixed):
        batch, found = evaluate(mixed, small_model())
        norms = Metric.at(batch, batch.variables).gradient_norms(batch, found.gradient)
        ours = torch.stack((found.value, *norms), dim=1).numpy()
        theirs = [shown_by_ase(crystal, small_model()) for crystal in mixed]
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)
        assert not found.isolated.any()

    def test_gradient_by_differences_of_mace_itself(self):
        crystals = [roomy_crystal(group, 1) for group in (5, 62, 152, 186)]
        batch, found = evaluate(crystals, small_model())
        calculator = mace_calculator(small_model())
        for crystal, gradient in zip(crystals, batch.split(found.gradient), strict=True):
            slope = slopes(crystal, lambda c: energy_per_atom(c.to_atoms(), calculator))
            np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize(
        "changes",
        [
            {"num_interactions": 1},
            {"num_interactions": 3, "hidden_irreps": "4x0e"},
            {"hidden_irreps": "4x0e + 4x1o + 4x2e", "correlation": 3},
            {"interaction_cls_first": "RealAgnosticResidualInteractionBlock"},
            {"interaction_cls": "RealAgnosticDensityInteractionBlock"},
            {"pair_repulsion": False},
        ],
        ids=lambda changes: " ".join(f"{k}={v}" for k, v in changes.items()),
    )
    def test_other_networks(self, changes):
        module = make_model(**changes)
        crystals = [roomy_crystal(group, 2) for group in (14, 152, 230)]
        batch, found = evaluate(crystals, module)
        norms = Metric.at(batch, batch.variables).gradient_norms(batch, found.gradient)
        ours = torch.stack((found.value, *norms), dim=1).numpy()
        theirs = [shown_by_ase(crystal, module) for crystal in crystals]
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)

    def test_the_second_layer_matters(self):
        """Otherwise nothing above would notice features that are not turned."""
        network = SiteNetwork(small_model())
        assert [str(ir) for _, ir in network.irreps] == ["0e", "1o"]
        crystal = roomy_crystal(152, 3)
        whole = evaluate([crystal], small_model())[1].value.item()
        batch = CrystalBatch.from_crystals([crystal])
        problem = make_energy(small_model()).bind(batch)
        problem._images.blocks = []
        unturned = problem.evaluate(batch.variables).value.item()
        assert abs(unturned - whole) > 1e-6


def test_crystals_of_a_batch_do_not_meet(mixed):
    together = evaluate(mixed, small_model())[1].value
    alone = [evaluate([crystal], small_model())[1].value.item() for crystal in mixed]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_calls_of_the_network_may_be_cut_anywhere(mixed, monkeypatch):
    whole = evaluate(mixed, small_model())[1]
    for edges in (1, 500):
        monkeypatch.setattr(mace_energy, "_CPU_EDGES", edges)
        cut = evaluate(mixed, small_model())[1]
        torch.testing.assert_close(cut.value, whole.value, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(cut.gradient, whole.gradient, rtol=1e-9, atol=1e-10)


def test_selected_crystals_keep_their_values(mixed):
    batch = CrystalBatch.from_crystals(mixed)
    problem = make_energy(small_model()).bind(batch)
    whole = problem.evaluate(batch.variables)
    keep = torch.arange(len(mixed)) % 3 == 1
    part = batch.select(keep)
    found = problem.select(keep, part).evaluate(part.variables)
    torch.testing.assert_close(found.value, whole.value[keep], rtol=1e-12, atol=1e-12)
    subset = batch.subset(keep)
    torch.testing.assert_close(
        found.gradient, whole.gradient[subset.variables], rtol=1e-9, atol=1e-10
    )


def test_neighbour_lists_follow_atoms_that_move_far():
    crystal = roomy_crystal(62, 4)
    batch = CrystalBatch.from_crystals([crystal])
    problem = make_energy(small_model()).bind(batch)
    problem.evaluate(batch.variables)
    rng = np.random.default_rng(0)
    for scale in (1e-3, 0.05, 0.15):
        start = crystal.free_variables
        moved = crystal.with_free_variables(start * (1 + scale * rng.uniform(-1, 1, start.size)))
        ours = problem.evaluate(torch.as_tensor(moved.free_variables)).value.item()
        theirs = energy_per_atom(moved.to_atoms(), mace_calculator(small_model()))
        assert ours == pytest.approx(theirs, rel=1e-10)


def test_single_precision_is_near(mixed):
    double = evaluate(mixed, small_model())[1]
    single = evaluate(mixed, small_model(), dtype=torch.float32)[1]
    assert single.value.dtype is torch.float64
    torch.testing.assert_close(single.value, double.value, rtol=1e-5, atol=1e-4)
    assert not torch.equal(single.value, double.value)


def test_the_model_itself_is_left_alone():
    module = small_model()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    evaluate([roomy_crystal(14, 0)], module, dtype=torch.float32)
    assert next(module.parameters()).dtype is torch.float64
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


class TestRefusals:
    def test_elements_that_the_model_does_not_know(self):
        crystal = random_crystal(62, 0, species=("Ge", "C"))
        with pytest.raises(ValueError, match=r"does not know Ge; it was made for C, Si"):
            evaluate([crystal], small_model())

    def test_what_is_no_mace_model(self):
        crystal = roomy_crystal(14, 0)
        with pytest.raises(ValueError, match="Linear is no MACE model"):
            evaluate([crystal], torch.nn.Linear(1, 1))

    def test_unknown_head(self):
        with pytest.raises(ValueError, match=r"head 'other': choose one of Default"):
            SiteNetwork(small_model(), head="other")


def test_atoms_on_top_of_each_other_are_a_wall():
    near = SymmetricCrystal.build(2, [4, 4, 4, 1.6, 1.6, 1.6], [("C", "i", [0.03, 0.03, 0.03])])
    fine = roomy_crystal(14, 0)
    _, found = evaluate([near, fine], small_model())
    assert found.value[0] > 1e6
    assert torch.isfinite(found.gradient).all()
    assert found.value[1].item() == pytest.approx(
        energy_per_atom(fine.to_atoms(), mace_calculator(small_model())), rel=1e-10
    )


def test_an_atom_without_neighbours_is_told():
    lonely = SymmetricCrystal.build(221, [9.0], [("C", "a", [])])
    _, found = evaluate([lonely, roomy_crystal(14, 0)], small_model())
    assert found.isolated.tolist() == [True, False]
    theirs = energy_per_atom(lonely.to_atoms(), mace_calculator(small_model()))
    assert found.value[0].item() == pytest.approx(theirs, rel=1e-10)


@pytest.mark.parametrize("degree", range(4))
def test_matrices_of_rotations_are_those_of_e3nn(degree):
    from e3nn import o3

    angles = torch.rand(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alpha, beta, gamma = angles * torch.tensor([[6.0], [3.0], [6.0]], dtype=torch.float64)
    rotations = o3.angles_to_matrix(alpha, beta, gamma)
    expected = o3.wigner_D(degree, alpha, beta, gamma)
    torch.testing.assert_close(wigner(degree, rotations), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        wigner(degree, -rotations), (-1) ** degree * expected, rtol=1e-10, atol=1e-10
    )
