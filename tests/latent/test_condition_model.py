from __future__ import annotations

from collections import Counter

import pytest
import torch
from latent_cases import tiny_data, tiny_model

from asexlatent.latent import Condition, EmpiricalConditions, Vocabulary
from asexlatent.latent.condition_model import train_conditions
from asexlatent.symmetry import CrystalError


def test_empirical_shares():
    a, b = Condition.parse("166 6c"), Condition.parse("194 2b 2c")
    empirical = EmpiricalConditions.of([a, b, a, a])
    drawn = Counter(empirical.sample(4000, seed=1))
    assert drawn[a] / 4000 == pytest.approx(0.75, abs=0.03)
    assert empirical.sample(10, seed=1) == empirical.sample(4000, seed=1)[:10]
    assert empirical.sample(10, seed=2) != empirical.sample(10, seed=1)
    assert set(empirical.restricted([194]).conditions) == {b}
    with pytest.raises(CrystalError, match="no space group 2"):
        empirical.restricted([2])


def test_proposals_can_be():
    """An untrained and a trained model propose only what `Condition` accepts, within limits."""
    data = tiny_data()
    vocabulary = Vocabulary.of(data.conditions, max_sites=4)
    for epochs in (0, 3):
        torch.set_num_threads(1)
        network = train_conditions(data.conditions, vocabulary, max_atoms=30, epochs=epochs)
        proposed = network.sample(300, seed=3)
        for condition in proposed:
            assert condition.n_atoms <= 30
            assert condition.n_sites <= 4
            assert vocabulary.problem(condition) is None
        assert len(set(proposed)) > 50


def test_proposals_depend_on_seed_and_number_only():
    network = tiny_model().proposer
    assert network.sample(12, seed=4) == network.sample(50, seed=4)[:12]
    assert network.sample(12, seed=4) != network.sample(12, seed=5)
    only = network.sample(30, seed=1, space_groups=[166, 194])
    assert {condition.space_group for condition in only} == {166, 194}
    with pytest.raises(CrystalError, match="space group 230"):
        network.sample(3, space_groups=[230])


def test_learns_what_follows_what():
    """Two conditions of one group, three to one: the model gives them back in that ratio."""
    a, b = Condition.parse("139 4e 8h"), Condition.parse("139 4d 4e 16n")
    vocabulary = Vocabulary.of([a, b], max_sites=4)
    torch.set_num_threads(1)
    network = train_conditions([a] * 96 + [b] * 32, vocabulary, epochs=150)
    found = Counter(network.sample(400, seed=0))
    assert found[a] / 400 == pytest.approx(0.75, abs=0.1)
    assert (found[a] + found[b]) / 400 > 0.9


def test_probability_is_the_product_of_the_steps():
    network = tiny_model().proposer
    condition = tiny_data().conditions[0]
    steps = network.steps([condition])
    assert len(steps.chosen) == condition.n_sites + 1
    logits = network.logits(steps.groups, steps.options, steps.features)
    by_hand = torch.stack(
        [
            -torch.log_softmax(row[open_], dim=0)[chosen]
            for row, open_, chosen in zip(logits, steps.open, steps.chosen, strict=True)
        ]
    )
    torch.testing.assert_close(network.loss(steps), by_hand.mean())
