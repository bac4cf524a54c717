from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from latent_cases import random_crystals, tiny_data, tiny_model

from asexlatent import CrystalBatch
from asexlatent.latent import Condition
from asexlatent.latent.model import Noise
from asexlatent.symmetry import CrystalError, RandomCrystals, SymmetricCrystal


def some_conditions(n: int = 12) -> list[Condition]:
    """As they come, not standard."""
    return [Condition.from_crystal(crystal) for crystal in random_crystals()[:n]]


def test_samples_keep_their_conditions():
    wanted = some_conditions()
    found = tiny_model().sample(wanted, n=30, seed=2)
    assert len(found) == 30
    for k, crystal in enumerate(found):
        assert isinstance(crystal, SymmetricCrystal)
        assert Condition.from_crystal(crystal) == wanted[k % len(wanted)]


def test_a_sample_depends_on_seed_number_and_condition_only():
    model, wanted = tiny_model(), some_conditions()
    whole = model.sample(wanted, seed=2)
    part = model.sample(wanted[:5], seed=2)
    for one, other in zip(part, whole, strict=False):
        np.testing.assert_allclose(one.free_variables, other.free_variables, rtol=1e-5, atol=1e-6)
    other = model.sample(wanted[:5], seed=3)
    assert not np.allclose(other[0].free_variables, part[0].free_variables)
    free = [model.sample(n=n, seed=1) for n in (4, 9)]
    assert [c.wyckoffs for c in free[0]] == [c.wyckoffs for c in free[1][:4]]


def test_cold_samples_are_decoded_z():
    """At temperature 0 a sample is what `decode` makes of its z; others scatter around it."""
    model, wanted = tiny_model(), some_conditions()
    cold = model.sample(wanted, seed=2, temperature=0.0)
    z = Noise.draw(range(len(wanted)), 2, model).z
    for one, other in zip(cold, model.decode(z, wanted), strict=True):
        np.testing.assert_allclose(one.free_variables, other.free_variables, rtol=1e-5, atol=1e-6)
    warm = model.sample(wanted, seed=2)
    assert not np.allclose(warm[0].free_variables, cold[0].free_variables)


@pytest.mark.parametrize("source", ["proposed", "training"])
def test_conditions_from_the_model(source):
    for crystal in tiny_model().sample(n=40, seed=0, source=source, space_groups=[166, 194]):
        assert isinstance(crystal, SymmetricCrystal)
        assert crystal.space_group in (166, 194)


def test_unknown_conditions_are_errors_in_their_place():
    wanted = [Condition.parse("166 6c"), Condition.parse("230 16b"), Condition.parse("166 B 6c")]
    good, group, element = tiny_model().sample(wanted)
    assert isinstance(good, SymmetricCrystal)
    assert isinstance(group, CrystalError)
    assert "space group 230" in str(group)
    assert "element B" in str(element)
    with pytest.raises(CrystalError, match="condition 1"):
        tiny_model().prepare(wanted)
    with pytest.raises(ValueError, match="how many"):
        tiny_model().sample()


def test_decoded_variables_are_those_of_the_crystals():
    model, wanted = tiny_model(), some_conditions()
    z = torch.randn((len(wanted), 4), generator=torch.Generator().manual_seed(0))
    free = model.decode_free_variables(z, wanted, "hard")
    crystals = model.decode(z, wanted)
    batch = CrystalBatch.from_crystals(crystals)
    torch.testing.assert_close(free, batch.variables)
    prepared = model.prepare(wanted)
    torch.testing.assert_close(model.decode_free_variables(z, prepared, "hard"), free)


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_gradient_of_decoding_against_differences(mode):
    model = tiny_model()
    exact = replace(model, network=copy.deepcopy(model.network).double())
    wanted = some_conditions(6)
    prepared = exact.prepare(wanted)
    z = torch.randn((6, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda z: exact.decode_free_variables(z, prepared, mode), z.requires_grad_(True), atol=1e-5
    )


def test_straight_through_reaches_every_latent_variable():
    model, wanted = tiny_model(), some_conditions(6)
    z = torch.zeros((6, 4), requires_grad=True)
    model.decode_free_variables(z, wanted).sum().backward()
    assert (z.grad != 0).all()


def test_encoding_does_not_depend_on_the_description():
    model = tiny_model()
    crystals = list(random_crystals()[:15])
    mu, logvar = model.encode(crystals)
    assert mu.shape == logvar.shape == (15, 4)
    turned = [SymmetricCrystal(c.space_group, c.cell_free, c.sites[::-1]) for c in crystals]
    moved = [
        c.with_free_variables(c.free_variables + np.r_[np.zeros(len(c.cell_free)), np.ones(n)])
        for c in turned
        for n in [len(c.free_variables) - len(c.cell_free)]
    ]
    torch.testing.assert_close(model.encode(turned)[0], mu, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.encode(moved)[0], mu, atol=1e-4, rtol=1e-4)


def test_crystals_the_model_cannot_take():
    model = tiny_model()
    strange = RandomCrystals("C", [230], seed=0).crystal(0)
    assert "space group 230" in model.problem(strange)
    assert model.problem(random_crystals()[0]) is None
    with pytest.raises(CrystalError, match="space group 230"):
        model.encode([random_crystals()[0], strange])
    assert model.encode([])[0].shape == (0, 4)


def test_baseline_samples_rows_that_build_or_say_why_not():
    model = tiny_model("tabular")
    found = model.sample(n=60, seed=1)
    assert len(found) == 60
    assert all(isinstance(c, SymmetricCrystal | CrystalError) for c in found)
    assert any(isinstance(c, SymmetricCrystal) for c in found)
    assert all(str(c) for c in found)
    with pytest.raises(CrystalError, match="unconditional"):
        model.sample(some_conditions())
    with pytest.raises(CrystalError, match="unconditional"):
        model.prepare(some_conditions())


def test_several_elements():
    model = tiny_model("cvae", "SiO2")
    assert model.vocabulary.species == ("O", "Si")
    found = model.sample(n=20, seed=0, source="training")
    assert {symbol for crystal in found for symbol in crystal.symbols} == {"O", "Si"}
    assert model.problem(random_crystals()[0]) is not None


def test_data_of_another_model_are_refused():
    other = tiny_data()
    with pytest.raises(CrystalError, match="element C"):
        tiny_model("cvae", "SiO2").rows(other)
