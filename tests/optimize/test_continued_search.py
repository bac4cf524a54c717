"""A search may go on where another one ended: `Restarts.first`."""

from __future__ import annotations

import numpy as np
from optimize_cases import random_crystal

from asexlatent.optimize import Restarts, refine


def test_two_searches_are_one_long_one():
    """Attempts 0 to 1 and then 2 to 3 find what attempts 0 to 3 find, at the same places."""
    crystals = [random_crystal(group, np.random.default_rng(group)) for group in (62, 88, 148)]
    steps = {"steps": 30}
    whole = refine(crystals, restarts=Restarts(3), **steps)
    begun = refine(crystals, restarts=Restarts(1), **steps)
    rest = [k for k, result in enumerate(begun) if not result.valid]
    assert any(whole[k].valid for k in rest)
    for k in rest:
        (result,) = refine([crystals[k]], restarts=Restarts(1, first=2), first_index=k, **steps)
        assert result.valid == whole[k].valid
        if result.valid:
            assert result.path == whole[k].path
            np.testing.assert_allclose(
                result.crystal.free_variables, whole[k].crystal.free_variables, atol=1e-6
            )


def test_one_attempt_later_on_is_a_search():
    assert not Restarts(0).searching
    assert Restarts(0, first=1).searching
    assert list(Restarts(2, first=3).attempts) == [3, 4, 5]
